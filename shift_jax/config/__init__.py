"""Experiments: every field with its default, meaning and range, and the recipes of `configs/`.

    from shift_jax.config import imagenet

    config = imagenet("shiftnet_a", "batch_size=256")
    config.data.data_dir = "/data/tfds"

The fields are plain Python: this package imports the standard library, `shift_jax.errors` and
`shift_jax.files` only.
"""

from shift_jax.config.experiment import (
    MARGINS,
    PAIR_PROTOCOLS,
    TASKS,
    ClassificationConfig,
    ExperimentConfig,
    FacesConfig,
    StyleConfig,
)
from shift_jax.config.mapping import (
    flatten,
    from_dict,
    nested,
    override,
    to_dict,
    with_absolute_paths,
)
from shift_jax.config.options import literal, parse_options
from shift_jax.config.recipes.classification import (
    AUTHORS_EPOCHS,
    authors_cifar,
    cifar,
    imagenet,
    quickstart,
)
from shift_jax.config.recipes.faces import faces
from shift_jax.config.recipes.finetuning import finetune
from shift_jax.config.recipes.style import style
from shift_jax.config.sections import DataConfig, ModelConfig, OptimizerConfig, ScheduleConfig
from shift_jax.config.setting import Field, check, fields_of

__all__ = [
    "AUTHORS_EPOCHS",
    "MARGINS",
    "PAIR_PROTOCOLS",
    "TASKS",
    "ClassificationConfig",
    "DataConfig",
    "ExperimentConfig",
    "FacesConfig",
    "Field",
    "ModelConfig",
    "OptimizerConfig",
    "ScheduleConfig",
    "StyleConfig",
    "authors_cifar",
    "check",
    "cifar",
    "faces",
    "fields_of",
    "finetune",
    "flatten",
    "from_dict",
    "imagenet",
    "literal",
    "nested",
    "override",
    "parse_options",
    "quickstart",
    "style",
    "to_dict",
    "with_absolute_paths",
]
