"""The config of each task: the fields that all tasks share, and those of each.

The sections nest as they do in a run's config.json, where the arguments of the model stand beside
its name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from shift_jax.config.sections import DataConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from shift_jax.config.setting import other_default, section, setting

PAIR_PROTOCOLS = ("all", "random", "lfw", "ytf")
"""Splits of faces: all or random pairs of identities not trained on, or those of a benchmark."""

MARGINS = ("none", "cosface", "arcface")
"""Margins of a face classifier; `shift_jax.tasks.face_losses` defines them."""


@dataclass(slots=True, kw_only=True)
class ExperimentConfig:
    """What all tasks share. Imported weights of an unknown task have no other fields."""

    task: ClassVar[str] = ""

    seed: int = setting(
        0,
        "seed of initialization, shuffling and augmentation",
        at_least=0,
        at_most=2**32 - 1,
    )
    init_from: str = setting(
        "",
        "trained weights to begin from: the folder of a run or of a checkpoint, a file that "
        "import-weights reads, or the name of shipped weights; empty for random ones. Only the "
        "classifier may differ, and then begins anew",
        path="or name",
    )
    model: ModelConfig = section(ModelConfig)
    data: DataConfig = section(DataConfig)
    schedule: ScheduleConfig = section(ScheduleConfig)
    optimizer: OptimizerConfig = section(OptimizerConfig)
    batch_size: int = setting(128, "images in a training batch, over all devices", at_least=1)
    accumulation_steps: int = setting(
        1, "parts in which each batch is computed, to save memory", at_least=1
    )
    eval_batch_size: int = setting(
        512, "images in an evaluation batch, over all devices", at_least=1, runtime_only=True
    )
    epochs: float = setting(1.0, "length of the training", above=0)
    eval_every_epochs: float = setting(
        1.0,
        "epochs between evaluations, each with a checkpoint; both also follow the last step",
        above=0,
    )
    log_every_steps: int = setting(
        50, "steps between lines of the log", at_least=1, runtime_only=True
    )
    checkpoint_every_steps: int = setting(
        0,
        "steps between additional checkpoints; 0 for checkpoints at evaluations only",
        at_least=0,
        runtime_only=True,
    )
    ema_decay: float = setting(
        0.0,
        "decay of a moving average of the weights, which is evaluated in their place; 0 for no "
        "average",
        at_least=0,
        below=1,
    )
    fsdp: int = setting(
        1,
        "devices that share one copy of weights and optimizer state; -1 for all",
        at_least=-1,
        runtime_only=True,
    )
    keep_latest: int = setting(
        2, "number of newest checkpoints to keep", at_least=1, runtime_only=True
    )
    keep_best: int = setting(
        1, "number of best checkpoints to keep beside them", at_least=0, runtime_only=True
    )
    tensorboard: bool = setting(True, "whether to log to TensorBoard", runtime_only=True)


@dataclass(slots=True, kw_only=True)
class ClassificationConfig(ExperimentConfig):
    """Image classification."""

    task: ClassVar[str] = "classification"

    label_smoothing: float = setting(
        0.0, "share of each label that is spread over all classes", at_least=0, below=1
    )
    mixup_alpha: float = setting(
        0.0,
        "α of MixUp, whose Beta distribution mixes pairs of images; 0 turns it off",
        at_least=0,
    )


@dataclass(slots=True, kw_only=True)
class FacesDataConfig(DataConfig):
    """Images of faces; those in data_dir/IDENTITY/ show one person."""

    name: str = setting("identities", "identities, a folder for each person, or lfw of TFDS")
    eval_split: str = setting(
        "all",
        "pairs to compare: all or random pairs of identities not trained on, or the pairs of the "
        "benchmark lfw or ytf",
        choices=PAIR_PROTOCOLS,
    )
    identities: tuple[str, ...] = setting(
        (), "names of the identities trained on, which the run draws and writes here"
    )
    num_identities: int = setting(
        0, "number of identities to draw; 0 for all that are not held out", at_least=0
    )
    held_out: int = setting(
        10, "number of identities, drawn at random, that are not trained on", at_least=0
    )
    held_out_file: str = setting(
        "",
        "file with a name on each line: identities to hold out in place of random ones",
        path=True,
    )
    sampling: str = setting(
        "uniform",
        "uniform over images, or balanced over identities",
        choices=("uniform", "balanced"),
    )
    image_size: int = other_default(DataConfig, "image_size", 160)
    mean: tuple[float, ...] = other_default(DataConfig, "mean", (0.5,) * 3)
    std: tuple[float, ...] = other_default(DataConfig, "std", (128 / 255,) * 3)
    max_unreadable_fraction: float = other_default(DataConfig, "max_unreadable_fraction", 0.01)


@dataclass(slots=True, kw_only=True)
class FaceLossConfig:
    """The loss of face embeddings; `shift_jax.tasks.face_losses` computes it."""

    center_weight: float = setting(
        0.003, "weight of the center loss beside softmax; 0 for none", at_least=0
    )
    center_rate: float = setting(
        0.5, "rate at which the centers follow the embeddings", at_least=0, at_most=1
    )
    margin: str = setting("none", "margin of the classifier", choices=MARGINS)
    margin_size: float = setting(
        0.5, "size of the margin, a cosine for cosface and radians for arcface", at_least=0
    )
    margin_scale: float = setting(
        64.0, "factor of the cosines that become logits with a margin", above=0
    )


@dataclass(slots=True, kw_only=True)
class VerificationConfig:
    """The pairs of faces that an evaluation compares."""

    data_dir: str = setting(
        "", "folder of the identities of the pairs; empty for data.data_dir", path=True
    )
    pairs_file: str = setting(
        "",
        "file of the pairs; empty for pairs.txt (lfw) or splits.txt (ytf) in data_dir",
        path=True,
    )
    num_pairs: int = setting(100_000, "number of random pairs", at_least=1)
    num_frame_pairs: int = setting(
        100, "ytf: pairs of frames drawn at random for each pair of videos", at_least=1
    )
    num_folds: int = setting(10, "folds of the cross-validation of all and random", at_least=2)
    seed: int = setting(0, "seed of the pairs, frames and folds", at_least=0)


@dataclass(slots=True, kw_only=True)
class FacesConfig(ExperimentConfig):
    """Face embedding."""

    task: ClassVar[str] = "faces"

    data: FacesDataConfig = section(FacesDataConfig)
    loss: FaceLossConfig = section(FaceLossConfig)
    verification: VerificationConfig = section(VerificationConfig)
    label_smoothing: float = other_default(ClassificationConfig, "label_smoothing", 0.0)


@dataclass(slots=True, kw_only=True)
class StyleDataConfig(DataConfig):
    """Photos without labels."""

    name: str = setting("photos", "photos, a folder of them, or a TFDS dataset such as coco")
    eval_split: str = setting("test", "test, the photos held out; of TFDS a slice of a split")
    held_out: int = setting(
        8, "number of a folder's photos, drawn at random, that are not trained on", at_least=0
    )
    image_size: int = other_default(DataConfig, "image_size", 256)
    # The networks take pixels in 0..255.
    mean: tuple[float, ...] = other_default(DataConfig, "mean", (0.0,) * 3)
    std: tuple[float, ...] = other_default(DataConfig, "std", (1 / 255,) * 3)
    drop_remainder: bool = other_default(DataConfig, "drop_remainder", True)


@dataclass(slots=True, kw_only=True)
class PerceptualLossConfig:
    """The style and the loss; `shift_jax.tasks.perceptual_loss` computes it."""

    folder: str = setting("styles", "folder of the style images", path=True)
    images: tuple[str, ...] = setting((), "files in it, each of which becomes a model of its own")
    size: int = setting(
        256,
        "shorter side in pixels that a style image is scaled to; 0 leaves it as it is",
        at_least=0,
    )
    vgg_weights: str = setting("", "file of the weights of VGG from PyTorch or Keras", path=True)
    vgg_depth: int = setting(16, "depth of VGG", choices=(16, 19))
    content_layer: str = setting("relu2_2", "layer of VGG whose features tell the content")
    style_layers: tuple[str, ...] = setting(
        ("relu1_2", "relu2_2", "relu3_3", "relu4_3"),
        "layers of VGG whose Gram matrices tell the style",
    )
    content_weight: float = setting(1e5, "weight of the content loss", at_least=0)
    style_weight: float = setting(1e10, "weight of the style loss", at_least=0)
    tv_weight: float = setting(0.0, "weight of the total variation", at_least=0)


@dataclass(slots=True, kw_only=True)
class StyleConfig(ExperimentConfig):
    """Style transfer; the defaults are those of the authors' code."""

    task: ClassVar[str] = "style"

    data: StyleDataConfig = section(StyleDataConfig)
    style: PerceptualLossConfig = section(PerceptualLossConfig)
    schedule: ScheduleConfig = section(ScheduleConfig, name="constant", learning_rate=1e-3)
    optimizer: OptimizerConfig = section(OptimizerConfig, name="adam", weight_decay=0.0)
    batch_size: int = other_default(ExperimentConfig, "batch_size", 4)
    eval_batch_size: int = other_default(ExperimentConfig, "eval_batch_size", 8)
    epochs: float = other_default(ExperimentConfig, "epochs", 2.0)


TASKS: dict[str, type[ExperimentConfig]] = {
    kind.task: kind for kind in (ExperimentConfig, ClassificationConfig, FacesConfig, StyleConfig)
}
"""The config of each task, by its name."""
