"""Weights of other libraries become a run's folder that `eval.py` takes; and the way back.

The commands are `shift_jax.weights.import_torch` and `shift_jax.weights.export_safetensors`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from shift_jax.errors import InputError, check_choice
from shift_jax.files import replaced_folder
from shift_jax.models import create_model, model_record
from shift_jax.training.evaluation import checkpoint_of
from shift_jax.training.runs.checkpoints import Checkpoints, restore_variables
from shift_jax.training.runs.workdir import claim_workdir
from shift_jax.weights import convert
from shift_jax.weights.keras_file import read_keras
from shift_jax.weights.safetensors_file import read_safetensors, write_safetensors
from shift_jax.weights.torch.file import read_torch
from shift_jax.weights.torch_names import layout_of

_CIFAR = {10: "cifar10", 100: "cifar100"}
# What is said otherwise: by the file, or by an option.
_NO_ARGUMENTS = {
    "num_classes": "the number of classes is the file's",
    "order": "say --shift_order=interleaved or grouped",
    "features_only": "a checkpoint holds the whole network",
}


@dataclass(frozen=True)
class Imported:
    """A network read from a file.

    Attributes:
      model, arguments: of `create_model`.
      num_classes: of its classifier; 0 without one.
      image_channels: of the images that it takes.
      variables: nested dicts of float32 arrays.
      remarks: what the file says of itself.
      data: fields of the config's `data`, where the file has them or needs others than the
        network's record has.
    """

    model: str
    arguments: Mapping[str, Any]
    num_classes: int
    image_channels: int
    variables: dict[str, Any]
    remarks: str = ""
    data: Mapping[str, Any] | None = None

    @property
    def is_classifier(self) -> bool:
        """Whether `eval.py` can evaluate it."""
        return self.num_classes > 0


def import_weights(
    file: str | Path,
    output: str | Path,
    *,
    model: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    shift_order: str = "interleaved",
    dataset: str | None = None,
    data_dir: str | None = None,
) -> Imported:
    """Writes a checkpoint with the weights of a file, in the folder of a run.

    Args:
      file: PyTorch's `.pth`, `.pt` or `.t7`, Keras' `.h5` or `.npz` of VGG-16 or VGG-19, or
        `.safetensors` of `export_safetensors`.
      output: the folder to make; must not exist or be empty.
      model: name of the network; only safetensors files may know it themselves.
      arguments: of the network; the number of classes is the file's.
      shift_order: channel order of the shifts that PyTorch weights were trained with:
        "interleaved" (the authors' CUDA kernel) or "grouped". Either way the imported CIFAR
        networks run in the grouped order, their weights being permuted (Eq. 9).
      dataset: to evaluate on; None is the file's, or CIFAR-10 or CIFAR-100 by the number of
        classes for the CIFAR networks, and ImageNet for the others.
      data_dir: where the dataset is; None is the file's or TFDS's default.

    Returns:
      What was imported.

    Raises:
      InputError: a file, model or folder that does not fit, or a file that is not what it seems.
    """
    file, output = Path(file), Path(output).absolute()
    arguments = dict(arguments or {})
    check_choice("shift_order", shift_order, ("interleaved", "grouped"))
    for key, why in _NO_ARGUMENTS.items():
        if key in arguments:
            raise InputError(f"{key} is no argument of an import: {why}.")
    try:
        if output.exists() and (not output.is_dir() or any(output.iterdir())):
            raise InputError(f"{output} is there already: give a new --output folder.")
        imported = _read(file, model, arguments, shift_order)
        _write(output, imported.variables, _config(imported, dataset, data_dir))
    except OSError as error:
        raise InputError(
            f"{output} cannot be written ({error.strerror}): choose another --output."
        ) from error
    return imported


def _write(output: Path, variables: dict, config: dict) -> None:
    """Makes the folder whole or not at all: beside the target, then moved there."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with replaced_folder(output) as temporary:
        claim_workdir(temporary, config)
        with Checkpoints(temporary / "checkpoints") as checkpoints:
            checkpoints.save(0, variables, config=config)


def export_safetensors(
    output: str | Path,
    *,
    workdir: str | None = None,
    checkpoint: str | None = None,
    dtype: str = "float32",
) -> None:
    """Writes the weights of a checkpoint, and its config as metadata, as one safetensors file.

    Args:
      output: the file.
      workdir: folder of a run, of which the newest checkpoint is taken.
      checkpoint: folder of one checkpoint instead.
      dtype: of the weights in the file; "bfloat16" halves it and rounds them to 8 bits.

    Raises:
      InputError: no such run or checkpoint, not exactly one of them, another type, or a file that
        cannot be written.
    """
    check_choice("dtype", dtype, ("float32", "bfloat16"))
    if (workdir is None) == (checkpoint is None):
        raise InputError("Give either --workdir=DIR or --checkpoint=DIR/checkpoints/STEP.")
    path = Path(checkpoint) if checkpoint else checkpoint_of(Path(workdir), "latest")
    variables, config = restore_variables(path)
    variables = jax.tree.map(lambda leaf: np.asarray(leaf, jnp.dtype(dtype)), variables)
    write_safetensors(output, variables, {"config": json.dumps(config, sort_keys=True)})


def _read(file: Path, model: str | None, arguments: dict, shift_order: str) -> Imported:
    if file.suffix == ".safetensors":
        return _from_safetensors(file, model, arguments)
    if model is None:
        raise InputError(f"Of which network is {file}? Give --model=NAME.")
    if file.suffix in (".h5", ".hdf5", ".npz", ".keras"):
        return _from_keras(file, model, arguments)
    return _from_torch(file, model, arguments, shift_order)


def _from_torch(file: Path, model: str, arguments: dict, shift_order: str) -> Imported:
    model_record(model)
    layout = layout_of(model, arguments)
    is_permuted = model.startswith("shiftresnet") and arguments.get("module", "csc") == "csc"
    if model.startswith("shift") and shift_order == "interleaved" and not is_permuted:
        # Their shifts read sums of several layers, which no permutation of weights reorders.
        arguments = {**arguments, "order": "interleaved"}
    content = read_torch(file)
    fitted = _fitted(model, arguments, content.tensors, convert.torch_source(layout))
    if is_permuted and shift_order == "interleaved":
        kernel_size = arguments.get("kernel_size", 3)
        fitted["variables"] = convert.grouped_from_interleaved(fitted["variables"], kernel_size)
    # Cut and quoted, because a file may hold any text.
    scalars = ", ".join(f"{key!r:.20} {value!r:.40}" for key, value in content.metadata.items())
    return Imported(
        model, arguments, **fitted, remarks=f"; the file says {scalars:.200}" if scalars else ""
    )


def _from_keras(file: Path, model: str, arguments: dict) -> Imported:
    if model not in ("vgg16", "vgg19"):
        raise InputError(f"Keras files are read for vgg16 and vgg19 only, not for {model!r}.")
    fitted = _fitted(model, arguments, read_keras(file), convert.keras_vgg_source())
    data = {"mean": [value / 255 for value in convert.KERAS_VGG_MEAN], "std": [1 / 255] * 3}
    return Imported(model, arguments, **fitted, data=data)


def _from_safetensors(file: Path, model: str | None, arguments: dict) -> Imported:
    variables, metadata = read_safetensors(file)
    data = None
    if model is None:
        if arguments:
            raise InputError(
                f"{file} knows its network and the arguments: leave {', '.join(arguments)} out, "
                "or give --model=NAME too."
            )
        try:
            config = json.loads(metadata["config"])
            arguments, data = dict(config["model"]), dict(config["data"])
            model = arguments.pop("name")
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{file} does not say of which network it is: give --model=NAME."
            ) from error
        for key in ("dtype", "num_classes", "features_only"):
            arguments.pop(key, None)
    tensors = flatten_dict(variables, sep="/")
    fitted = _fitted(model, arguments, tensors, convert.our_source())
    return Imported(model, arguments, **fitted, data=data)


def _fitted(
    model: str, arguments: dict, tensors: Mapping[str, np.ndarray], source: convert.Source
) -> dict[str, Any]:
    """The variables of the network with a file's classes and image channels."""
    record = model_record(model)

    def shapes(classes: int | None, channels: int) -> dict:
        network = create_model(model, num_classes=classes, **arguments)
        images = jax.ShapeDtypeStruct((1, *record.image_shape[:2], channels), jnp.float32)
        return jax.eval_shape(lambda x: network.init(jax.random.key(0), x), images)

    probe = shapes(None if record.num_classes is None else 1, 3)
    classes = convert.class_count(tensors, probe, source)
    if classes is None:
        classes = record.num_classes
    channels = convert.image_channels(tensors, probe, source)
    return {
        "num_classes": classes or 0,
        "image_channels": channels,
        "variables": convert.to_variables(tensors, shapes(classes, channels), source),
    }


def _config(imported: Imported, dataset: str | None, data_dir: str | None) -> dict:
    """As much of a config as evaluation reads; `configs/common.py` explains the fields."""
    record = model_record(imported.model)
    given = dict(imported.data or {})
    if dataset not in (None, given.get("name")):
        given = {key: given[key] for key in ("mean", "std", "image_size") if key in given}
    is_cifar = record.image_shape[0] == 32
    guessed = _CIFAR.get(imported.num_classes) if is_cifar else "imagenet2012"
    name = dataset or given.get("name") or guessed
    if not isinstance(name, str):
        raise InputError(
            f"The network has {imported.num_classes} classes, which neither CIFAR has: say by "
            "--dataset=NAME what it is to be evaluated on."
        )
    channels = imported.image_channels
    is_rgb = channels == len(record.mean)
    data = {
        "name": name,
        "data_dir": "",
        "train_split": "train",
        "eval_split": "validation" if name == "imagenet2012" else "test",
        "image_size": record.image_shape[0],
        "eval_crop": record.crop,
        "pad": 0,
        "flip": False,
        "mean": list(record.mean) if is_rgb else [0.5] * channels,
        "std": list(record.std) if is_rgb else [0.5] * channels,
        "drop_remainder": False,
        "num_workers": 0,
    }
    # Of a file only what evaluation knows, in the types that it knows.
    data |= {key: v for key, v in given.items() if type(v) is type(data.get(key))}
    data["name"] = name
    if data_dir is not None:
        data["data_dir"] = str(Path(data_dir).absolute()) if data_dir else ""
    return {
        "task": "classification" if imported.is_classifier else "",
        "seed": 0,
        "model": {
            "name": imported.model,
            "dtype": "float32",
            "initialization": "he",
            **imported.arguments,
        },
        "data": data,
        "batch_size": 128,
        "eval_batch_size": 128,
        "label_smoothing": 0.0,
    }
