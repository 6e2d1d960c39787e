"""Defaults that the experiments share; each field is explained here and nowhere else."""

import ast

from ml_collections import ConfigDict


def classification() -> ConfigDict:
    """Returns an image-classification experiment without dataset and model."""
    config = ConfigDict()
    config.task = "classification"
    config.seed = 0  # Of initialisation, shuffling and augmentation.

    config.model = ConfigDict()
    config.model.name = ""  # One of shift_jax.list_models(); further fields are its arguments.
    config.model.dtype = "float32"  # Of the computation, or "bfloat16"; parameters are float32.
    config.model.initialization = "he"  # Or "pytorch".

    config.data = ConfigDict()
    config.data.name = ""  # "digits", "folder" or a TFDS dataset.
    config.data.data_dir = ""  # Of TFDS or the folder; "" is TFDS's default.
    config.data.train_split = "train"
    config.data.eval_split = "test"
    config.data.image_size = 0  # Side in pixels to resize to; 0 leaves images as they are.
    config.data.pad = 0  # Zero pixels on each side before the random crop.
    config.data.flip = False  # Mirror half of the images.
    config.data.mean = (0.5,)  # Of the channels, for pixels in 0..1.
    config.data.std = (0.5,)
    config.data.drop_remainder = False  # Leave out the last, smaller batch of each epoch.
    config.data.num_workers = 0  # Processes that decode images; 0 uses threads of this one.

    config.batch_size = 128  # Of all devices together.
    config.accumulation_steps = 1  # Parts that each batch is computed in, to need less memory.
    config.eval_batch_size = 512
    config.epochs = 1.0
    config.eval_every_epochs = 1.0  # Evaluation and a checkpoint; both also after the last step.
    config.log_every_steps = 50
    config.checkpoint_every_steps = 0  # More checkpoints between evaluations; 0 for none.
    config.label_smoothing = 0.0
    config.mixup_alpha = 0.0  # Of the Beta distribution that mixes pairs of images; 0 for none.
    config.ema_decay = 0.0  # Of a moving average of the weights, which is evaluated; 0 for none.
    config.fsdp = 1  # Devices that share one copy of weights and optimizer state; -1 for all.

    config.schedule = ConfigDict()  # See shift_jax.training.optimizer.make_schedule.
    config.schedule.name = "step"
    config.schedule.learning_rate = 0.1
    config.schedule.boundaries_epochs = ()
    config.schedule.factor = 0.1
    config.schedule.warmup_epochs = 0.0

    config.optimizer = ConfigDict()  # See shift_jax.training.optimizer.make_optimizer.
    config.optimizer.momentum = 0.9
    config.optimizer.nesterov = False
    config.optimizer.weight_decay = 5e-4
    config.optimizer.weight_decay_coupled = True
    config.optimizer.weight_decay_on = "all"
    config.optimizer.clip_norm = 0.0
    config.optimizer.restart_momentum_each_epoch = False

    config.keep_latest = 2  # Newest checkpoints kept.
    config.keep_best = 1  # Best checkpoints kept beside them.
    config.tensorboard = True
    return config


def parse_options(text: str) -> tuple[list[str], dict[str, object]]:
    """Splits "cifar100,shiftresnet20,expansion=3" into its words and its key=value pairs.

    Values are read as Python literals where they are some, else as strings.
    """
    words, pairs = [], {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            words.append(part)
            continue
        try:
            pairs[key.strip()] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            pairs[key.strip()] = value
    return words, pairs
