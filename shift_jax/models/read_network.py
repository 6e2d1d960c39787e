"""Reads a network of the registry from a file of PyTorch, Keras, Caffe or safetensors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shift_jax.errors import InputError, check_choice
from shift_jax.models.fitting import fit, nearest_network
from shift_jax.models.registry import ModelRecord, list_models, model_record
from shift_jax.weights import convert
from shift_jax.weights.caffe_file import read_caffe
from shift_jax.weights.formats import format_of
from shift_jax.weights.keras_file import read_keras
from shift_jax.weights.safetensors_file import read_safetensors
from shift_jax.weights.torch.file import read_torch

# These come from elsewhere.
_NO_ARGUMENTS = {
    "num_classes": "the file has the number of classes",
    "order": "give --shift_order=interleaved or --shift_order=grouped",
    "features_only": "a checkpoint holds the whole network",
}


@dataclass(frozen=True)
class NetworkFile:
    """A network read from a file.

    Attributes:
      model, arguments: of `create_model`.
      num_classes: of its classifier; 0 without one.
      image_channels: of the images that it takes.
      variables: nested dicts of float32 arrays.
      remarks: what the file says about itself.
      data: fields of the config's `data`, from the file or instead of those of the network's
        record.
      class_names: labels of the classes in their dataset, in the order of the outputs; None if the
        file does not name them.
    """

    model: str
    arguments: Mapping[str, Any]
    num_classes: int
    image_channels: int
    variables: dict[str, Any]
    remarks: str = ""
    data: Mapping[str, Any] | None = None
    class_names: tuple[str, ...] | None = None

    @property
    def is_classifier(self) -> bool:
        """Whether `eval.py` can evaluate it."""
        return self.num_classes > 0


def read_network(
    file: str | Path,
    model: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    shift_order: str = "interleaved",
) -> NetworkFile:
    """Reads a network from a file of weights, recognized by its content and not by its name.

    Args:
      file: PyTorch's `.pth`, `.pt`, `.t7` or safetensors; Keras's `.h5` or `.npz` of VGG-16 or
        VGG-19; Caffe's `.caffemodel`; or safetensors of this package.
      model: name of the network; only safetensors of this package may leave it out.
      arguments: of `create_model`; the number of classes is the file's.
      shift_order: channel order of the shifts that PyTorch weights were trained with:
        "interleaved" (the authors' CUDA kernel) or "grouped". CIFAR networks run in the grouped
        order either way: their weights are permuted (Eq. 9).

    Raises:
      InputError: an unknown model or argument, a file that cannot be read, or one that does not fit
        the network; then the message has the first tensor that differs and the nearest network.
    """
    file, arguments = Path(file), dict(arguments or {})
    check_choice("shift_order", shift_order, ("interleaved", "grouped"))
    for key, why in _NO_ARGUMENTS.items():
        if key in arguments:
            raise InputError(f"{key} is not an argument of an import: {why}.")
    kind, metadata, remarks = format_of(file), {}, ""
    tensors: Mapping[str, np.ndarray] = {}
    if kind == "safetensors":
        variables, metadata = read_safetensors(file)
        tensors = convert.flat(variables)
        if "config" in metadata or any(name.startswith("params/") for name in tensors):
            return _ours(file, tensors, metadata, model, arguments)
    if model is None:
        raise InputError(f"{file} does not say which network it is of: give --model=NAME.")
    record = model_record(model)
    if kind == "keras":
        return _keras(record, arguments, file)
    if kind == "caffe":
        return _caffe(record, arguments, file)
    if record.torch_layout is None:
        known = [name for name in list_models() if model_record(name).torch_layout]
        raise InputError(
            f"No PyTorch layout is known for model {model!r}, only for {', '.join(known)}."
        )
    if kind == "torch":
        content = read_torch(file)
        tensors = content.tensors
        # Cut and quoted, because a file may hold any text.
        scalars = ", ".join(f"{key!r:.20} {value!r:.40}" for key, value in content.metadata.items())
        remarks = f"; the file says {scalars:.200}" if scalars else ""
    return _torch(record, arguments, tensors, shift_order, remarks)


def _torch(
    record: ModelRecord,
    arguments: dict[str, Any],
    tensors: Mapping[str, np.ndarray],
    shift_order: str,
    remarks: str,
) -> NetworkFile:
    layout = record.known_torch_layout(arguments)
    is_interleaved = shift_order == "interleaved" and "order" in record.arguments
    if is_interleaved and layout.to_grouped is None:
        arguments = {**arguments, "order": "interleaved"}
    try:
        fitted = fit(record, arguments, tensors, layout.tensor_layout())
    except convert.MisfitError as error:
        raise InputError(f"{error}{nearest_network(record, arguments, tensors)}") from error
    if is_interleaved and layout.to_grouped is not None:
        fitted["variables"] = layout.to_grouped(fitted["variables"])
    return NetworkFile(record.name, arguments, **fitted, remarks=remarks)


def _keras(record: ModelRecord, arguments: dict[str, Any], file: Path) -> NetworkFile:
    if record.keras_layout is None:
        known = [name for name in list_models() if model_record(name).keras_layout]
        raise InputError(
            f"Keras files are read for {' and '.join(known)} only, not for {record.name!r}."
        )
    layout = record.keras_layout()
    fitted = fit(record, arguments, read_keras(file), layout)
    return NetworkFile(record.name, arguments, **fitted, data=_normalization(layout))


def _caffe(record: ModelRecord, arguments: dict[str, Any], file: Path) -> NetworkFile:
    if record.caffe_layout is None:
        known = [name for name in list_models() if model_record(name).caffe_layout]
        raise InputError(
            f"Caffe's files are read for {' and '.join(known)} only, not for {record.name!r}."
        )
    layout = record.caffe_layout(arguments)
    fitted = fit(record, arguments, layout.prepare(read_caffe(file)), layout)
    return NetworkFile(record.name, arguments, **fitted, data=_normalization(layout))


def _normalization(layout: convert.TensorLayout) -> dict[str, Any]:
    """The fields of the config's `data` that say which pixels networks of an origin read."""
    assert layout.mean and layout.std
    return {"mean": list(layout.mean), "std": list(layout.std)}


def _ours(
    file: Path,
    tensors: Mapping[str, np.ndarray],
    metadata: Mapping[str, str],
    model: str | None,
    arguments: dict[str, Any],
) -> NetworkFile:
    data, class_names = None, None
    if model is None:
        if arguments:
            raise InputError(
                f"{file} says which network and arguments it is of: leave "
                f"{', '.join(arguments)} out, or give --model=NAME too."
            )
        try:
            config = json.loads(metadata["config"])
            arguments, data = dict(config["model"]), dict(config["data"])
            model = str(arguments.pop("name"))
            class_names = _class_names(metadata)
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{file} does not say which network it is of: give --model=NAME."
            ) from error
        for key in ("dtype", "num_classes", "features_only"):
            arguments.pop(key, None)
    fitted = fit(model_record(model), arguments, tensors, convert.our_layout())
    if class_names is not None and len(class_names) != fitted["num_classes"]:
        raise InputError(
            f"{file} names {len(class_names)} classes, and its network has "
            f"{fitted['num_classes']}: write it again."
        )
    return NetworkFile(model, arguments, **fitted, data=data, class_names=class_names)


def _class_names(metadata: Mapping[str, str]) -> tuple[str, ...] | None:
    names = json.loads(metadata.get("class_names", "null"))
    return None if names is None else tuple(map(str, names))
