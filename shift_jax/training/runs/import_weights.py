"""Import of other libraries' weights as a run that `eval.py` can evaluate, and export.

The commands are `shift-jax import-weights` and `shift-jax export`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shift_jax.config import DataConfig, ExperimentConfig, check, from_dict, to_dict
from shift_jax.data import Fingerprint
from shift_jax.data.class_names import imagenet_classes
from shift_jax.errors import InputError, check_choice
from shift_jax.files import absolute_path, as_input_error, replaced_folder, usable_path
from shift_jax.models import model_record
from shift_jax.models.read_network import NetworkFile, read_network
from shift_jax.training.runs.checkpoint_files import read_manifest, restore_variables
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.runs.selection import checkpoint_of
from shift_jax.training.runs.trained_data import learned_class_names
from shift_jax.training.runs.workdir import claim_workdir
from shift_jax.weights.safetensors_file import write_safetensors

_CIFAR = {10: "cifar10", 100: "cifar100"}
_IMAGENET = "imagenet2012"


def import_weights(
    file: str | Path,
    output: str | Path,
    *,
    model: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    shift_order: str = "interleaved",
    dataset: str | None = None,
    data_dir: str | None = None,
) -> NetworkFile:
    """Writes the weights of a file as a checkpoint in the folder of a run.

    Args:
      output: the folder to create; it must not exist, or be empty.
      file, model, arguments, shift_order: see `shift_jax.models.read_network.read_network`.
      dataset: dataset to evaluate on. None means the file's; without one, CIFAR-10 or CIFAR-100 by
        the number of classes for the CIFAR networks, and ImageNet for the others.
      data_dir: folder of the dataset; None means the file's or TFDS's default.

    Returns:
      The imported network.

    Raises:
      InputError: a file, model or folder that does not fit, or a damaged file.
    """
    output = Path(output).absolute()
    with as_input_error(output, "choose another --output"):
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise InputError(f"{output} already exists: give a new --output folder.")
        imported = read_network(file, model, arguments, shift_order)
        config = _config(imported, dataset, data_dir)
        _write(output, imported, to_dict(config))
    return imported


def _write(output: Path, imported: NetworkFile, config: dict) -> None:
    """Creates the whole folder or nothing."""
    names = imported.class_names
    if names is None and imported.num_classes == 1000 and config["data"]["name"] == _IMAGENET:
        names = tuple(label for label, _ in imagenet_classes())
    training = {} if names is None else {"data": Fingerprint(names, 0, None)._asdict()}
    output.parent.mkdir(parents=True, exist_ok=True)
    with replaced_folder(output) as temporary:
        claim_workdir(temporary, config)
        with Checkpoints(temporary / "checkpoints") as checkpoints:
            checkpoints.save(0, imported.variables, config=config, training=training)


def export_safetensors(
    output: str | Path,
    *,
    workdir: str | None = None,
    checkpoint: str | None = None,
    dtype: str = "float32",
) -> None:
    """Writes the weights of a checkpoint as one safetensors file.

    Its metadata are the config and the names of the classes.

    Args:
      output: the file.
      workdir: folder of a run, for its newest checkpoint.
      checkpoint: folder of one checkpoint instead.
      dtype: type of the weights in the file; "bfloat16" halves the file and rounds to 8 bits.

    Raises:
      InputError: no such run or checkpoint, not exactly one of them, another type, or a file that
        cannot be written.
    """
    check_choice("dtype", dtype, ("float32", "bfloat16"))
    if (workdir is None) == (checkpoint is None):
        raise InputError("Give either --workdir=DIR or --checkpoint=DIR/checkpoints/STEP.")
    path = Path(checkpoint) if checkpoint else checkpoint_of(Path(workdir or ""), "latest")
    variables, config = restore_variables(path)
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, jnp.dtype(dtype)), variables)
    metadata = {"config": json.dumps(config, sort_keys=True)}
    if names := learned_class_names(read_manifest(path)):
        metadata["class_names"] = json.dumps(names)
    write_safetensors(output, variables, metadata)


def _config(imported: NetworkFile, dataset: str | None, data_dir: str | None) -> ExperimentConfig:
    """Returns the config with which evaluation reads the dataset."""
    record = model_record(imported.model)
    given = dict(imported.data or {})
    if dataset not in (None, given.get("name")):
        given = {key: given[key] for key in ("mean", "std", "image_size") if key in given}
    is_cifar = record.image_shape[0] == 32
    guessed = _CIFAR.get(imported.num_classes) if is_cifar else _IMAGENET
    name = dataset or given.get("name") or guessed
    if not isinstance(name, str):
        raise InputError(
            f"The network has {imported.num_classes} classes, which neither CIFAR has: name the "
            "dataset to evaluate on by --dataset=NAME."
        )
    channels = imported.image_channels
    is_rgb = channels == len(record.mean)
    data = {
        "eval_split": "validation" if name == _IMAGENET else "test",
        "image_size": record.image_shape[0],
        "eval_crop": record.crop,
        "mean": record.mean if is_rgb else (0.5,) * channels,
        "std": record.std if is_rgb else (0.5,) * channels,
    }
    # The file of another task has more fields.
    known = {field.name for field in dataclasses.fields(DataConfig)}
    data |= {key: value for key, value in given.items() if key in known}
    data["name"] = name
    if data_dir is not None:
        data["data_dir"] = absolute_path(usable_path("data_dir", data_dir)) if data_dir else ""
    config = from_dict(
        {
            "task": "classification" if imported.is_classifier else "",
            "model": {"name": imported.model, **imported.arguments},
            "data": data,
            "eval_batch_size": 128,
        }
    )
    check(config)
    return config
