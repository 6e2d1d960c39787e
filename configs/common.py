"""Defaults that the experiments share; each field is explained here and nowhere else."""

import os
from collections.abc import Sequence

from ml_collections import ConfigDict

from shift_jax.errors import InputError, did_you_mean, positive_int
from shift_jax.models.arguments import literal


def classification() -> ConfigDict:
    """Returns an image-classification experiment without dataset and model."""
    config = _experiment("classification")
    config.label_smoothing = 0.0
    config.mixup_alpha = 0.0  # Of the Beta distribution that mixes pairs of images; 0 for none.
    return config


def faces() -> ConfigDict:
    """Returns a face-embedding experiment without model.

    The images of data.data_dir/IDENTITY/ are of one person each.
    """
    config = _experiment("faces")
    config.label_smoothing = 0.0
    config.data.name = "identities"  # Or "lfw", TFDS's; both to train on.
    config.data.eval_split = "all"  # Pairs of others: "all", "random", or those of "lfw", "ytf".
    config.data.identities = ()  # Those trained on; the run draws them and writes them here.
    config.data.num_identities = 0  # How many it draws; 0 for all that are not held out.
    config.data.held_out = 10  # Identities drawn at random that are not trained on.
    config.data.held_out_file = ""  # In their place those named in a file, one on each line.
    config.data.image_size = 160  # Side in pixels of aligned faces.
    config.data.sampling = "uniform"  # Over images, or "balanced": over identities.
    config.data.mean = (0.5, 0.5, 0.5)
    config.data.std = (128 / 255,) * 3
    config.data.max_unreadable_fraction = 0.01

    config.loss = ConfigDict()  # See shift_jax.tasks.face_losses.
    config.loss.center_weight = 0.003  # Of the center loss beside softmax; 0 for none.
    config.loss.center_rate = 0.5  # By which the centers follow the embeddings, 0..1.
    config.loss.margin = "none"  # Or "cosface", "arcface".
    config.loss.margin_size = 0.5
    config.loss.margin_scale = 64.0

    config.verification = ConfigDict()
    config.verification.data_dir = ""  # Folder of the pairs' identities; "" is data.data_dir.
    config.verification.pairs_file = ""  # "" is pairs.txt (lfw) or splits.txt (ytf) in it.
    config.verification.num_pairs = 100_000  # Of "random".
    config.verification.num_frame_pairs = 100  # Of two videos (ytf), drawn at random.
    config.verification.num_folds = 10  # Of "all" and "random".
    config.verification.seed = 0  # Of what is drawn for pairs, frames and folds.
    return config


def style() -> ConfigDict:
    """Returns a style-transfer experiment without model and style; the numbers are the authors'."""
    config = _experiment("style")
    config.data.name = "photos"  # A folder of photos; or a TFDS set, such as "coco".
    config.data.train_split = "train"
    config.data.eval_split = "test"  # The photos held out; of TFDS a slice of a split.
    config.data.held_out = 8  # Photos of a folder that are not trained on, drawn at random.
    config.data.image_size = 256
    config.data.mean = (0.0, 0.0, 0.0)  # The networks take pixels in 0..255.
    config.data.std = (1 / 255,) * 3
    config.data.drop_remainder = True

    config.style = ConfigDict()  # See shift_jax.tasks.perceptual_loss.
    config.style.folder = "styles"
    config.style.images = ()  # Files in it; each becomes a model of its own.
    config.style.size = 256  # Shorter side that they are scaled to; 0 leaves them as they are.
    config.style.vgg_weights = ""  # A file of PyTorch's or Keras' VGG.
    config.style.vgg_depth = 16  # Or 19.
    config.style.content_layer = "relu2_2"
    config.style.style_layers = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    config.style.content_weight = 1e5
    config.style.style_weight = 1e10
    config.style.tv_weight = 0.0  # Of the total variation.

    config.batch_size = 4
    config.eval_batch_size = 8
    config.epochs = 2.0
    config.schedule.name = "constant"
    config.schedule.learning_rate = 1e-3
    config.optimizer.name = "adam"
    config.optimizer.weight_decay = 0.0
    return config


def _experiment(task: str) -> ConfigDict:
    config = ConfigDict()
    config.task = task
    config.seed = 0  # Of initialisation, shuffling and augmentation.

    config.model = ConfigDict()
    config.model.name = ""  # One of shift_jax.list_models(); further fields are its arguments.
    config.model.dtype = "float32"  # Of the computation, or "bfloat16"; parameters are float32.
    config.model.initialization = "he"  # Or "pytorch".

    config.data = ConfigDict()
    config.data.name = ""  # "digits", "folder", "synthetic" or a TFDS dataset.
    config.data.data_dir = ""  # Of TFDS or the folder; "" is TFDS's default.
    config.data.train_split = "train"
    config.data.eval_split = "test"
    config.data.image_size = 0  # Side in pixels to resize to; 0 leaves images as they are.
    config.data.eval_crop = 1.0  # Fraction of the shorter side kept at evaluation.
    config.data.augmentation = "pad_crop_flip"  # Or "inception": a random resized crop.
    config.data.flip = False  # Mirror half of the images, with either augmentation.
    config.data.pad = 0  # pad_crop_flip: zero pixels on each side before the random crop.
    config.data.crop_scale = (0.08, 1.0)  # inception: smallest and largest area of the crop.
    config.data.crop_ratio = (3 / 4, 4 / 3)  # inception: smallest and largest width / height.
    config.data.color_jitter = 0.0  # inception: of brightness, contrast and saturation, 0..1.
    config.data.randaugment_num_ops = 0  # inception: RandAugment's N; 0 does without.
    config.data.randaugment_magnitude = 9  # inception: RandAugment's M, 0..30.
    config.data.mean = (0.5,)  # Of the channels, for pixels in 0..1.
    config.data.std = (0.5,)
    config.data.drop_remainder = False  # Leave out the last, smaller batch of each epoch.
    config.data.max_unreadable_fraction = 0.001  # More unreadable ones in a process stop the run.
    config.data.num_workers = 0  # Processes that decode images; 0 uses threads of this one.

    config.batch_size = 128  # Of all devices together.
    config.accumulation_steps = 1  # Parts that each batch is computed in, to need less memory.
    config.eval_batch_size = 512
    config.epochs = 1.0
    config.eval_every_epochs = 1.0  # Evaluation and a checkpoint; both also after the last step.
    config.log_every_steps = 50
    config.checkpoint_every_steps = 0  # More checkpoints between evaluations; 0 for none.
    config.ema_decay = 0.0  # Of a moving average of the weights, which is evaluated; 0 for none.
    config.fsdp = 1  # Devices that share one copy of weights and optimizer state; -1 for all.

    config.schedule = ConfigDict()  # See shift_jax.training.optimizer.make_schedule.
    config.schedule.name = "step"
    config.schedule.learning_rate = 0.1
    config.schedule.boundaries_epochs = ()
    config.schedule.factor = 0.1
    config.schedule.warmup_epochs = 0.0

    config.optimizer = ConfigDict()  # See shift_jax.training.optimizer.make_optimizer.
    config.optimizer.name = "sgd"  # Or "adam".
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

    Values are Python literals or powers such as 0.5**0.5 where they are some, else strings.
    """
    words, pairs = [], {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            words.append(part)
            continue
        pairs[key.strip()] = literal(value)
    return words, pairs


def imagenet(model: str, options: str = "", arguments: Sequence[str] = ()) -> ConfigDict:
    """Returns ImageNet classification by the paper's recipe, or what the options make of it.

    The paper gives 90 epochs, batches of 2048, learning rate 0.8 divided by 10 every 30 epochs, He
    initialisation and Inception-style crops; momentum 0.9 and weight decay 1e-4 are ours.

    Args:
      model: one of shift_jax.list_models().
      options: what follows the colon of --config, separated by commas:
        batch_size=N: with the learning rate in proportion (0.1 for 256 images).
        strong: 300 epochs of cosine decay after 5 of warm-up, with RandAugment, MixUp, label
          smoothing and an average of the weights, in place of the paper's recipe and jitter.
        smoke: twelve steps on a laptop: small random images in place of ImageNet, or with
          --config.data.name those of a TFDS set.
      arguments: those of the network that are options too, such as "width".

    Raises:
      InputError: an option that does not exist, or a batch_size that is no number.
    """
    words, pairs = parse_options(options)
    known = ("smoke", "strong", "batch_size", *arguments)
    for name in (*words, *pairs):
        if name not in known or (name in ("smoke", "strong")) != (name in words):
            raise InputError(
                f"The options {options!r} have {name!r}, expected strong, smoke or "
                f"{', '.join(f'{key}=VALUE' for key in known[2:])}.{did_you_mean(name, known)}"
            )

    config = classification()
    config.model.name = model
    config.model.dtype = "bfloat16"
    for key in arguments:
        if key in pairs:
            value = pairs[key]
            # As a float, whose override may be a fraction: a field of a config keeps its type.
            config.model[key] = float(value) if isinstance(value, int) else value

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
    config.data.max_unreadable_fraction = 0.001
    # Each holds up to four batches of its process: 308 MB for 2048 images.
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


def face_embedding(model: str, options: str = "") -> ConfigDict:
    """Returns face embedding by softmax and center loss, on any folder of identities.

    The paper names the losses and the 10,000 identities of MS-Celeb-1M (Section 3.3) and no further
    number; the others are ours.

    Args:
      model: "shiftfacenet" or "facenet".
      options: what follows the colon of --config:
        paper: 10,000 identities, 100,000 random pairs of the others.
        small: for some hundred images of some dozen people, on a CPU: steps of 25 small images.

    Raises:
      InputError: an option that does not exist.
    """
    words, pairs = parse_options(options)
    known = ("paper", "small")
    for name in (*words, *pairs):
        if name not in known or name in pairs:
            raise InputError(
                f"The options {options!r} have {name!r}, expected {' or '.join(known)}."
                f"{did_you_mean(name, known)}"
            )
    config = faces()
    config.model.name = model
    config.data.augmentation = "inception"
    config.data.crop_scale = (0.7, 1.0)
    config.data.crop_ratio = (0.9, 1 / 0.9)
    config.data.flip = True
    config.data.drop_remainder = True
    config.data.num_workers = min(os.cpu_count() or 1, 16)
    config.epochs = 30.0
    config.checkpoint_every_steps = 1000
    config.eval_batch_size = 256
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    if "paper" in words:
        config.data.num_identities = 10_000
        config.data.held_out = 0
        config.data.eval_split = "random"
    if "small" in words:
        config.data.image_size = 96
        config.data.num_workers = 0
        config.data.color_jitter = 0.3
        config.data.crop_scale = (0.75, 1.0)
        config.batch_size = 25
        config.loss.center_weight = 0.0005
        config.eval_every_epochs = 10.0
        config.schedule.warmup_epochs = 4.0
        config.optimizer.nesterov = True
        config.optimizer.weight_decay_on = "kernels"
    return config


def style_transfer(options: str = "") -> ConfigDict:
    """Returns style transfer by the authors' recipe.

    Args:
      options: what follows the colon of --config, separated by commas: names of pictures in
        style.folder, with or without their ending, and
        original: Johnson's convolutions in place of shifts.
        variant=text: the sizes of the paper's text in place of those of the released code.
        coco: TFDS's COCO in place of a folder, with pictures every 517 steps.
        small: for some hundred photos and a CPU: six epochs of steps of 2 parts of photos, 96×96,
            with a higher learning rate that decays.

    Raises:
      InputError: no style, or an option that does not exist.
    """
    words, pairs = parse_options(options)
    images = tuple(word for word in words if word not in ("original", "small", "coco"))
    unknown = [key for key in pairs if key != "variant"]
    if not images or unknown:
        raise InputError(
            f"The options {options!r} name no style, expected pictures in style.folder, as in "
            "configs/style.py:mosaic."
            if not unknown
            else f"The options {options!r} have {unknown[0]!r}, expected variant=VALUE."
        )
    config = style()
    config.model.name = "style_transformer" if "original" in words else "shift_style_transformer"
    config.model.variant = pairs.get("variant", "released")
    config.style.images = images
    config.checkpoint_every_steps = 1000
    if "coco" in words:
        config.data.name = "coco"
        config.data.eval_split = "validation[:8]"
        config.eval_every_epochs = 0.025
    if "small" in words:
        config.data.image_size = 96
        config.data.augmentation = "inception"
        config.data.crop_scale = (0.2, 1.0)
        config.data.crop_ratio = (1.0, 1.0)
        config.data.flip = True
        config.batch_size = 2
        config.epochs = 6.0
        config.schedule.name = "cosine"
        config.schedule.learning_rate = 1e-2
    return config
