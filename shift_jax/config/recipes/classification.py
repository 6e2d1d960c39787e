"""Recipes of image classification: the digits, CIFAR and ImageNet."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from shift_jax.config.experiment import ClassificationConfig
from shift_jax.config.options import parse_options
from shift_jax.errors import InputError, did_you_mean, positive_int

AUTHORS_EPOCHS = 164
"""Length of the authors' CIFAR recipe."""

_CIFAR = ("cifar10", "cifar100")


def quickstart() -> ClassificationConfig:
    """Returns ShiftResNet20 with expansion 3 on scikit-learn's handwritten digits."""
    config = ClassificationConfig()
    config.model.name = "shiftresnet20"
    config.model.arguments = {"expansion": 3.0}

    config.data.name = "digits"
    config.data.pad = 1
    config.data.drop_remainder = True  # 1,437 images leave a batch that few devices divide.

    config.batch_size = 64
    config.epochs = 30.0
    config.eval_every_epochs = 3.0
    config.log_every_steps = 44
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.1
    config.schedule.warmup_epochs = 2.0
    return config


def authors_cifar(
    dataset: str, model: str, arguments: Mapping[str, Any], epochs: int = AUTHORS_EPOCHS
) -> ClassificationConfig:
    """Returns the recipe of the authors' CIFAR code for one network.

    Args:
      dataset: "cifar10" or "cifar100".
      model: one of shift_jax.list_models().
      arguments: of the model.
      epochs: length of the schedule; the learning rate falls after 1/2 and 3/4 of it.
    """
    config = ClassificationConfig()
    config.model.name = model
    config.model.initialization = "pytorch"
    config.model.arguments = dict(arguments)

    config.data.name = dataset
    config.data.pad = 4
    config.data.flip = True
    # CIFAR-10's statistics for CIFAR-100 too, as in the authors' code.
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2023, 0.1994, 0.2010)

    config.batch_size = 128
    config.epochs = float(epochs)
    config.schedule.learning_rate = 0.1
    config.schedule.boundaries_epochs = (_plain(epochs / 2), _plain(epochs * 3 / 4))
    config.optimizer.weight_decay = 5e-4
    config.optimizer.restart_momentum_each_epoch = True
    return config


def _plain(number: float) -> float:
    """A whole number as an integer, as config.json has always shown the authors' boundaries."""
    return int(number) if number == int(number) else number


def cifar(options: str = "cifar100,shiftresnet20,expansion=3") -> ClassificationConfig:
    """Returns CIFAR classification by the authors' recipe, or as the options change it.

    Args:
      options: the dataset (cifar10 or cifar100), the model and its arguments as key=value,
        separated by commas, and perhaps
        short: 40 epochs of a recipe of ours that gets further in few epochs.
        smoke: 512 images and two epochs, for a run of seconds on a CPU.

    Raises:
      InputError: options that do not name a dataset and a model.
    """
    words, arguments = parse_options(options)
    names = [word for word in words if word not in ("short", "smoke")]
    if len(names) != 2 or names[0] not in _CIFAR:
        raise InputError(
            f"The options {options!r} do not name a dataset and a model: expected cifar10 or "
            "cifar100, then a model, as in configs/cifar.py:cifar100,shiftresnet20,expansion=3."
        )
    for key in {"expansion", "factor"} & arguments.keys():
        arguments[key] = _float(arguments[key])
    dataset, model = names
    config = authors_cifar(dataset, model, arguments)
    if "short" in words:
        _shorten(config)
    if "smoke" in words:
        config.data.train_split = "train[:512]"
        config.data.eval_split = "test[:256]"
        config.epochs = 2.0
        config.log_every_steps = 1
    return config


def _shorten(config: ClassificationConfig) -> None:
    """Changes the authors' recipe into the one for few epochs."""
    config.model.initialization = "he"
    if config.data.name == "cifar100":
        config.data.mean = (0.5071, 0.4866, 0.4409)
        config.data.std = (0.2673, 0.2564, 0.2762)
    config.batch_size = 64
    config.epochs = 40.0
    config.schedule.name = "cosine"
    config.schedule.learning_rate = 0.2
    config.schedule.boundaries_epochs = ()
    config.schedule.warmup_epochs = 1.0
    config.optimizer.nesterov = True
    config.optimizer.weight_decay_on = "kernels"
    config.optimizer.restart_momentum_each_epoch = False


def _float(value: Any) -> Any:
    """A float in place of an integer: an override by a fraction keeps the type of a field."""
    return float(value) if isinstance(value, int) else value


def imagenet(model: str, options: str = "", arguments: Sequence[str] = ()) -> ClassificationConfig:
    """Returns ImageNet classification by the paper's recipe, or as the options change it.

    The paper gives 90 epochs, batches of 2048, learning rate 0.8 divided by 10 every 30 epochs, He
    initialization and Inception-style crops; momentum 0.9 and weight decay 1e-4 are ours.

    Args:
      model: one of shift_jax.list_models().
      options: separated by commas:
        batch_size=N: also scales the learning rate in proportion (0.1 for 256 images).
        strong: in place of the paper's recipe and color jitter, 300 epochs of cosine decay after 5
          of warm-up, with RandAugment, MixUp, label smoothing and an average of the weights.
        smoke: twelve steps on a laptop, with small random images in place of ImageNet, or with
          the TFDS dataset that --config.data.name names.
      arguments: names of the model's arguments that are options too, such as "width".

    Raises:
      InputError: an unknown option, or a batch_size that is not a positive integer.
    """
    words, pairs = parse_options(options)
    known = ("smoke", "strong", "batch_size", *arguments)
    for name in (*words, *pairs):
        if name not in known or (name in ("smoke", "strong")) != (name in words):
            raise InputError(
                f"The options {options!r} have {name!r}, expected strong, smoke or "
                f"{', '.join(f'{key}=VALUE' for key in known[2:])}.{did_you_mean(name, known)}"
            )

    config = ClassificationConfig()
    config.model.name = model
    config.model.dtype = "bfloat16"
    config.model.arguments = {key: _float(pairs[key]) for key in arguments if key in pairs}

    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    config.data.image_size = 224
    config.data.augmentation = "inception"
    config.data.flip = True
    config.data.color_jitter = 0.4
    config.data.eval_crop = 0.875
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.data.drop_remainder = True
    # Each worker holds up to four batches of its process: 308 MB for 2048 images.
    config.data.num_workers = min(os.cpu_count() or 1, 16)

    batch_size = positive_int(
        "batch_size", pairs.get("batch_size", 16 if "smoke" in words else 2048)
    )
    config.batch_size = batch_size
    config.epochs = 90.0
    config.checkpoint_every_steps = 500
    config.schedule.learning_rate = 0.8 * batch_size / 2048
    config.schedule.boundaries_epochs = (30, 60)
    config.optimizer.weight_decay = 1e-4
    if "strong" in words:
        _strengthen(config)
    if "smoke" in words:
        config.model.dtype = "float32"
        config.data.name = "synthetic"
        config.data.train_split = f"train[:{12 * batch_size}]"
        config.data.eval_split = "validation[:40]"
        config.data.image_size = 64
        config.data.num_workers = 0
        config.eval_batch_size = batch_size
        config.epochs = 1.0
        config.checkpoint_every_steps = 5
        config.log_every_steps = 4
    return config


def _strengthen(config: ClassificationConfig) -> None:
    """Changes the paper's ImageNet recipe into the strong one."""
    config.epochs = 300.0
    config.schedule.name = "cosine"
    config.schedule.boundaries_epochs = ()
    config.schedule.warmup_epochs = 5.0
    config.optimizer.nesterov = True
    config.optimizer.weight_decay = 5e-5
    config.optimizer.weight_decay_on = "kernels"
    config.data.color_jitter = 0.0
    config.data.randaugment_num_ops = 2
    config.data.randaugment_magnitude = 7
    config.label_smoothing = 0.1
    config.mixup_alpha = 0.2
    config.ema_decay = 0.9999
