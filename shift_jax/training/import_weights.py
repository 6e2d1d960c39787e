"""Weights of other libraries become a run's folder that `eval.py` takes; and the way back.

The commands are `shift_jax.weights.import_torch` and `shift_jax.weights.export_safetensors`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from shift_jax.errors import InputError
from shift_jax.models import create_model, model_record
from shift_jax.training.checkpoints import Checkpoints, restore_variables
from shift_jax.training.evaluation import checkpoint_of
from shift_jax.training.workdir import claim_workdir
from shift_jax.weights.convert import (
    KERAS_VGG_MEAN,
    from_keras_vgg,
    from_ours,
    from_torch,
    grouped_from_interleaved,
)
from shift_jax.weights.keras_file import read_keras
from shift_jax.weights.safetensors_file import read_safetensors, write_safetensors
from shift_jax.weights.torch_file import read_torch
from shift_jax.weights.torch_names import layout_of

_CIFAR = {10: "cifar10", 100: "cifar100"}


def import_weights(
    file: str | Path,
    output: str | Path,
    *,
    model: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    shift_order: str = "interleaved",
    dataset: str | None = None,
    data_dir: str = "",
) -> str:
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
      dataset: to evaluate on; None is CIFAR-10 or CIFAR-100 by the number of classes for the CIFAR
        networks, and ImageNet for the others.
      data_dir: where the dataset is; "" is TFDS's default.

    Returns:
      What was imported, in a line.

    Raises:
      InputError: a file, model or folder that does not fit, or a file that is not what it seems.
    """
    file, output = Path(file), Path(output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} is there already: give a new --output folder.")
    imported = _read(file, model, dict(arguments or {}), shift_order)
    config = imported.pop("config", None)
    if config is None:
        config = _evaluation_config(imported, dataset, data_dir)
    # Whole or not at all: made beside the target, then moved.
    partial = output.with_name(output.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        claim_workdir(partial, config)
        with Checkpoints(partial / "checkpoints") as checkpoints:
            checkpoints.save(0, imported["variables"], config=config)
        if output.exists():
            output.rmdir()
        partial.rename(output)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(imported["variables"]["params"]))
    return f"{imported['model']}: {parameters:,} parameters{imported['remarks']}"


def export_safetensors(
    output: str | Path, *, workdir: str | None = None, checkpoint: str | None = None
) -> None:
    """Writes the weights of a checkpoint, and its config as metadata, as one safetensors file.

    Args:
      output: the file.
      workdir: folder of a run, of which the newest checkpoint is taken.
      checkpoint: folder of one checkpoint instead.

    Raises:
      InputError: no such run or checkpoint, not exactly one of them, or a file that cannot be
        written.
    """
    if (workdir is None) == (checkpoint is None):
        raise InputError("Give either --workdir=DIR or --checkpoint=DIR/checkpoints/STEP.")
    path = Path(checkpoint) if checkpoint else checkpoint_of(Path(workdir), "latest")
    variables, config = restore_variables(path)
    write_safetensors(output, variables, {"config": json.dumps(config, sort_keys=True)})


def _read(file: Path, model: str | None, arguments: dict, shift_order: str) -> dict[str, Any]:
    if file.suffix == ".safetensors":
        variables, metadata = read_safetensors(file)
        return _from_safetensors(file, variables, metadata, model, arguments)
    if model is None:
        raise InputError(f"Of which network is {file}? Give --model=NAME.")
    if file.suffix in (".h5", ".hdf5", ".npz"):
        return _from_keras(file, model, arguments)
    return _from_torch(file, model, arguments, shift_order)


def _from_torch(file: Path, model: str, arguments: dict, shift_order: str) -> dict[str, Any]:
    if shift_order not in ("interleaved", "grouped"):
        raise InputError(f"shift_order is {shift_order!r}, expected 'interleaved' or 'grouped'.")
    model_record(model)
    layout = layout_of(model, arguments)
    content = read_torch(file)
    num_classes = _classes(content.tensors, layout.classifier, "weight", axis=0)
    shift_arguments = dict(arguments)
    is_permuted = model.startswith("shiftresnet") and arguments.get("module", "csc") == "csc"
    if model.startswith("shift") and shift_order == "interleaved" and not is_permuted:
        # Their shifts read sums of several layers, which no permutation of weights reorders.
        shift_arguments["order"] = "interleaved"
    shapes, num_classes = _shapes(model, num_classes, shift_arguments)
    variables = from_torch(content.tensors, shapes, layout)
    if is_permuted and shift_order == "interleaved":
        variables = grouped_from_interleaved(variables, arguments.get("kernel_size", 3))
    scalars = ", ".join(f"{key} {value}" for key, value in content.metadata.items())
    return {
        "model": model,
        "arguments": shift_arguments,
        "num_classes": num_classes,
        "variables": variables,
        "remarks": f"; the file says {scalars}" if scalars else "",
    }


def _from_keras(file: Path, model: str, arguments: dict) -> dict[str, Any]:
    if model not in ("vgg16", "vgg19"):
        raise InputError(f"Keras files are read for vgg16 and vgg19 only, not for {model!r}.")
    tensors = read_keras(file)
    shapes, num_classes = _shapes(
        model, _classes(tensors, "predictions", "bias", axis=0), arguments
    )
    return {
        "model": model,
        "arguments": arguments,
        "num_classes": num_classes,
        "variables": from_keras_vgg(tensors, shapes),
        "remarks": "",
        "mean": tuple(value / 255 for value in KERAS_VGG_MEAN),
        "std": (1 / 255,) * 3,
    }


def _from_safetensors(
    file: Path, variables: dict, metadata: dict[str, str], model: str | None, arguments: dict
) -> dict[str, Any]:
    config = None
    if model is None:
        try:
            config = json.loads(metadata["config"])
            model = config["model"]["name"]
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{file} does not say of which network it is: give --model=NAME."
            ) from error
        arguments = {
            key: value for key, value in config["model"].items() if key not in ("name", "dtype")
        }
    bias = variables.get("params", {}).get("classifier", {}).get("bias")
    shapes, num_classes = _shapes(model, None if bias is None else len(bias), arguments)
    return {
        "model": model,
        "arguments": arguments,
        "num_classes": num_classes,
        "variables": from_ours(variables, shapes),
        "remarks": "",
        **({"config": config} if config else {}),
    }


def _classes(tensors: Mapping, classifier: str | None, leaf: str, axis: int) -> int | None:
    """The number of classes in a file; None leaves it to the network's default."""
    tensor = tensors.get(f"{classifier}.{leaf}")
    return None if tensor is None or tensor.ndim == 0 else tensor.shape[axis]


def _shapes(model: str, num_classes: int | None, arguments: dict) -> tuple[dict, int]:
    """The variables' shapes, and the number of classes."""
    record = model_record(model)
    network = create_model(model, num_classes=num_classes, **arguments)
    images = jax.ShapeDtypeStruct((1, *record.image_shape), jnp.float32)
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), images)
    return shapes, network.num_classes


def _evaluation_config(imported: dict[str, Any], dataset: str | None, data_dir: str) -> dict:
    """As much of a config as evaluation reads; `configs/common.py` explains the fields."""
    record = model_record(imported["model"])
    is_cifar = record.image_shape[0] == 32
    if dataset is None:
        dataset = _CIFAR.get(imported["num_classes"]) if is_cifar else "imagenet2012"
    if dataset is None:
        raise InputError(
            f"The network has {imported['num_classes']} classes, which neither CIFAR has: say by "
            "--dataset=NAME what it is to be evaluated on."
        )
    return {
        "task": "classification",
        "seed": 0,
        "model": {"name": imported["model"], "dtype": "float32", **imported["arguments"]},
        "data": {
            "name": dataset,
            "data_dir": data_dir,
            "train_split": "train",
            "eval_split": "validation" if dataset == "imagenet2012" else "test",
            "image_size": record.image_shape[0],
            "pad": 0,
            "flip": False,
            "mean": imported.get("mean", record.mean),
            "std": imported.get("std", record.std),
            "drop_remainder": False,
            "num_workers": 0,
        },
        "batch_size": 128,
        "eval_batch_size": 128,
        "label_smoothing": 0.0,
    }
