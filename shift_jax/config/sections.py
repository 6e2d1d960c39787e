"""The sections that every experiment has: model, data, schedule and optimizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shift_jax.config.setting import setting


@dataclass(slots=True, kw_only=True)
class ModelConfig:
    """The network, built by `shift_jax.create_model`."""

    name: str = setting("", "one of shift_jax.list_models()")
    dtype: str = setting(
        "float32",
        "data type of the computation; parameters are float32",
        choices=("float32", "bfloat16", "float16"),
    )
    initialization: str = setting(
        "he", "distribution of the initial weights", choices=("he", "pytorch")
    )
    arguments: dict[str, Any] = setting(
        {}, "further arguments of the model, such as expansion; in files, fields beside the name"
    )


@dataclass(slots=True, kw_only=True)
class DataConfig:
    """The dataset and how its images are prepared; `shift_jax.data` reads them."""

    name: str = setting("", "digits, folder, synthetic or a TFDS dataset")
    data_dir: str = setting(
        "", "folder of the dataset; empty for the default of TFDS", path=True, runtime_only=True
    )
    train_split: str = setting("train", "split to train on")
    eval_split: str = setting("test", "split to evaluate on during training")
    image_size: int = setting(
        0, "side in pixels to resize images to; 0 leaves them as they are", at_least=0
    )
    eval_crop: float = setting(
        1.0, "fraction of the shorter side kept at evaluation", above=0, at_most=1
    )
    augmentation: str = setting(
        "pad_crop_flip",
        "random transform of the training images; inception is a random resized crop",
        choices=("pad_crop_flip", "inception"),
    )
    flip: bool = setting(
        False, "whether to mirror half of the training images, with either augmentation"
    )
    pad: int = setting(
        0, "pad_crop_flip: zero pixels on each side before the random crop", at_least=0
    )
    crop_scale: tuple[float, ...] = setting(
        (0.08, 1.0),
        "inception: smallest and largest area of the crop, as fractions of the image",
        above=0,
        at_most=1,
        length=2,
    )
    crop_ratio: tuple[float, ...] = setting(
        (3 / 4, 4 / 3),
        "inception: smallest and largest width / height of the crop",
        above=0,
        length=2,
    )
    color_jitter: float = setting(
        0.0,
        "inception: strength of changes in brightness, contrast and saturation",
        at_least=0,
        at_most=1,
    )
    randaugment_num_ops: int = setting(0, "inception: N of RandAugment; 0 turns it off", at_least=0)
    randaugment_magnitude: int = setting(9, "inception: M of RandAugment", at_least=0, at_most=30)
    mean: tuple[float, ...] = setting((0.5,), "mean of each channel, for pixels in 0..1")
    std: tuple[float, ...] = setting(
        (0.5,), "standard deviation of each channel, for pixels in 0..1", above=0
    )
    drop_remainder: bool = setting(
        False, "whether to leave out the last, smaller batch of each epoch"
    )
    max_unreadable_fraction: float = setting(
        0.001,
        "fraction of a process's examples that may be unreadable before the run stops",
        at_least=0,
        at_most=1,
        before=0.0,
        runtime_only=True,
    )
    num_workers: int = setting(
        0,
        "processes that decode images; 0 for threads of the main process",
        at_least=0,
        runtime_only=True,
    )


@dataclass(slots=True, kw_only=True)
class ScheduleConfig:
    """The learning rate over time; `shift_jax.training.optimizer.make_schedule` computes it."""

    name: str = setting(
        "step",
        "step multiplies the rate by factor at each boundary; cosine decays it to 0 at the last "
        "step; constant keeps it",
        choices=("step", "cosine", "constant"),
    )
    learning_rate: float = setting(0.1, "learning rate after the warm-up", at_least=0)
    boundaries_epochs: tuple[float, ...] = setting(
        (), "step: epochs at which the rate changes", at_least=0, increasing=True
    )
    factor: float = setting(0.1, "step: what each boundary multiplies the rate by", at_least=0)
    warmup_epochs: float = setting(
        0.0,
        "epochs over which the rate rises linearly from 0, without delaying the rest",
        at_least=0,
    )


@dataclass(slots=True, kw_only=True)
class OptimizerConfig:
    """The update of the weights, in PyTorch's order: clip, coupled decay, momentum, rate."""

    name: str = setting(
        "sgd",
        "SGD; Adam, which ignores momentum and nesterov; or AdamW, Adam with weight decay that is "
        "never coupled",
        choices=("sgd", "adam", "adamw"),
    )
    momentum: float = setting(
        0.9, "decay of the momentum buffer, which sums gradients undampened", at_least=0, below=1
    )
    nesterov: bool = setting(False, "whether to use Nesterov's momentum")
    betas: tuple[float, ...] = setting(
        (0.9, 0.999),
        "Adam: decay of the averages of the gradients and of their squares",
        at_least=0,
        below=1,
        length=2,
    )
    eps: float = setting(1e-8, "Adam: term added to the root of the second average", above=0)
    weight_decay: float = setting(5e-4, "coefficient of the weight decay", at_least=0)
    weight_decay_coupled: bool = setting(
        True,
        "whether the decay is added to the gradient and so goes through the momentum (PyTorch's "
        "SGD, L2 regularization); otherwise learning rate × decay × weights is subtracted apart",
    )
    weight_decay_on: str = setting(
        "all",
        "parameters that decay; all includes BatchNorm's and biases, as in the authors' code",
        choices=("all", "kernels"),
    )
    clip_norm: float = setting(
        0.0, "largest global norm of the gradient; 0 for no clipping", at_least=0
    )
    frozen: tuple[str, ...] = setting(
        (),
        "beginnings of names of parameters, such as stem or group1_block1/conv1, that stay as they "
        "are; their BatchNorm uses its running statistics",
    )
    learning_rate_factors: tuple[str, ...] = setting(
        (),
        "beginnings of names of parameters with a factor of the learning rate for each, such as "
        "classifier=10; the first that fits counts",
    )
    shift_learning_rate_factor: float = setting(
        0.01, "learned shifts: factor of the learning rate of their offsets", at_least=0
    )
    normalize_shift_gradients: bool = setting(
        True,
        "learned shifts: whether only the direction of the gradient of a channel's offset counts",
    )
    freeze_shifts_after_epochs: float = setting(
        0.0,
        "learned shifts: epochs after which the offsets stay as they are, half of all for the "
        "Sparse Shift Layer; 0 for never",
        at_least=0,
    )
    restart_momentum_each_epoch: bool = setting(
        False,
        "whether the momentum buffer starts empty every epoch, as in the authors' CIFAR code, "
        "which makes a new optimizer then",
    )
