"""A recipe for a folder of one's own photos, which begins from trained weights."""

from __future__ import annotations

from collections.abc import Callable

from shift_jax.config.experiment import ClassificationConfig, ExperimentConfig
from shift_jax.config.options import parse_options
from shift_jax.errors import InputError, did_you_mean, positive_int


def finetune(options: str, config_of: Callable[[str], ExperimentConfig]) -> ClassificationConfig:
    """Returns the training of a given network on some hundreds of photos in class folders.

    The images are prepared as those that the network was trained on.

    Args:
      options: the weights to begin from, as the field `init_from` takes them, but no file; and
        perhaps, after a comma, image_size=N in place of the size that they were trained on.
      config_of: returns the config that those weights were trained with.

    Raises:
      InputError: no weights, an unknown option, or weights of no classifier.
    """
    words, pairs = parse_options(options)
    if len(words) != 1:
        raise InputError(
            f"The options {options!r} do not name the weights to begin from: expected the folder "
            "of a run, or a name, as in configs/finetune.py:shiftresnet20-3.cifar100."
        )
    for name in pairs:
        if name != "image_size":
            raise InputError(
                f"The options {options!r} have {name!r}, expected image_size=N."
                f"{did_you_mean(name, ['image_size'])}"
            )
    (source,) = words
    theirs = config_of(source)
    if not isinstance(theirs, ClassificationConfig):
        raise InputError(
            f"{source} is a network of the task {theirs.task!r}, expected a classifier: name other "
            "weights."
        )
    config = ClassificationConfig()
    config.init_from = source
    config.model.name = theirs.model.name
    config.model.arguments = dict(theirs.model.arguments)

    config.data.name = "folder"
    size = pairs.get("image_size", theirs.data.image_size or 32)
    config.data.image_size = positive_int("image_size", size)
    config.data.mean, config.data.std = theirs.data.mean, theirs.data.std
    config.data.eval_crop = theirs.data.eval_crop
    config.data.augmentation = "inception"
    config.data.crop_scale = (0.4, 1.0)
    config.data.flip = True
    config.data.drop_remainder = True  # A last batch of any size suits few numbers of devices.

    config.batch_size = 32
    config.epochs = 20.0
    config.eval_every_epochs = 2.0
    config.log_every_steps = 5
    config.label_smoothing = 0.1
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    config.schedule.learning_rate = 1e-3
    config.optimizer.name = "adamw"
    config.optimizer.weight_decay = 0.01
    config.optimizer.weight_decay_on = "kernels"
    config.optimizer.learning_rate_factors = ("classifier=10",)
    return config
