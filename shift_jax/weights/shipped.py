"""The trained weights that come with the package, and a record of each."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from shift_jax.errors import InputError, did_you_mean
from shift_jax.weights.safetensors_file import read_safetensors, sha256

_FILES = Path(__file__).parent / "files"


@dataclass(frozen=True, eq=False, kw_only=True)
class WeightRecord:
    """The record of a file `NAME.safetensors`, read from the `.json` beside it.

    Attributes:
      name: MODEL.TAG, or MODEL-E.TAG with the expansion E, such as "shiftresnet20-3.cifar100".
      model, tag: parts of the name.
      arguments: of `create_model`.
      num_classes: width of the classifier; None for a network that returns images.
      class_names: labels of the classes in the dataset, in the order of the outputs; empty where it
        names none.
      image_shape: (height, width, channels) of the training images.
      mean, std: of the channels, for pixels in 0..1.
      crop: fraction of the shorter side of an image that is kept to evaluate it.
      trained_on: dataset and split.
      recipe: the command that trained it.
      top1: accuracy on `evaluated_on`, as a fraction; None for a network without classes.
      evaluated_on: dataset and split; "" if there is no accuracy.
      license: of the weights.
      source: who trained them.
      sha256: of the file, in hexadecimal.
    """

    name: str
    arguments: Mapping[str, Any]
    num_classes: int | None
    class_names: tuple[str, ...] = ()
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float = 1.0
    trained_on: str
    recipe: str
    top1: float | None = None
    evaluated_on: str = ""
    license: str
    source: str
    sha256: str

    @property
    def model(self) -> str:
        return self.name.partition(".")[0].partition("-")[0]

    @property
    def tag(self) -> str:
        return self.name.partition(".")[2]

    @property
    def path(self) -> Path:
        """Path of the weight file."""
        return _FILES / f"{self.name}.safetensors"


@cache
def shipped_weights() -> tuple[WeightRecord, ...]:
    """Returns the records of all shipped files, sorted by name."""
    records = []
    for path in sorted(_FILES.glob("*.json")):
        fields = json.loads(path.read_text())
        for key in ("image_shape", "mean", "std", "class_names"):
            fields[key] = tuple(fields.get(key, ()))
        fields["arguments"] = MappingProxyType(fields["arguments"])
        records.append(WeightRecord(name=path.name.removesuffix(".json"), **fields))
    return tuple(records)


def list_pretrained(pattern: str = "*") -> list[str]:
    """Returns the sorted names of the trained weights that come with the package.

        >>> from shift_jax import list_pretrained
        >>> list_pretrained("shiftresnet20")
        ['shiftresnet20-3.cifar100', 'shiftresnet20.digits']

    Args:
      pattern: a shell pattern for the names of the weights or of their networks.
    """
    return [
        record.name
        for record in shipped_weights()
        if fnmatch.fnmatch(record.name, pattern) or fnmatch.fnmatch(record.model, pattern)
    ]


def weights_named(name: str) -> WeightRecord:
    """Returns the record with a name such as "shiftresnet20.digits"; InputError if none has it."""
    named = {record.name: record for record in shipped_weights()}
    if name not in named:
        raise InputError(
            f"No trained weights {name!r} come with this package, only {', '.join(named)}."
            f"{did_you_mean(name, named)}"
        )
    return named[name]


def find_weights(
    model: str, tag: str | None = None, arguments: Mapping[str, Any] = MappingProxyType({})
) -> WeightRecord:
    """Returns the record of the only weights with this name, tag and arguments.

    Args:
      model: name of the network, or of its weights, such as "shiftresnet20.digits".
      tag: of the weights; None if the other arguments suffice.
      arguments: some of the arguments that the network was trained with.

    Raises:
      InputError: no weights fit, or several do.
    """
    if "." in model:
        ours = [weights_named(model)]
    else:
        ours = [record for record in shipped_weights() if record.model == model]
    if not ours:
        raise InputError(
            f"No trained weights of {model!r} come with this package, only "
            f"{', '.join(list_pretrained())}."
        )
    tagged = [record for record in ours if tag in (None, record.tag)]
    if not tagged:
        tags = dict.fromkeys(record.tag for record in ours)
        raise InputError(
            f"{model!r} has no weights with the tag {tag!r}, only {', '.join(tags)}."
            f"{did_you_mean(str(tag), tags)}"
        )
    fitting = [
        record
        for record in tagged
        if all(record.arguments.get(key) == value for key, value in arguments.items())
    ]
    if len(fitting) != 1:
        listed = "; ".join(
            f"tag={record.tag!r} with {_spelled(record.arguments)}" for record in fitting or tagged
        )
        asked = f" with {_spelled(arguments)}" if arguments else ""
        number = f"{len(fitting)} trained weights" if fitting else "no trained weights"
        raise InputError(f"{model!r} has {number}{asked}: choose among {listed}.")
    return fitting[0]


def _spelled(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in arguments.items()) or "no arguments"


def read_weights(record: WeightRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the variables of a shipped file, as nested dicts of numpy arrays, and its config.

    Raises:
      InputError: the file is missing or is not the shipped one.
    """
    if not record.path.exists() or sha256(record.path) != record.sha256:
        raise InputError(
            f"{record.path} is missing or is not the shipped file (its SHA-256 differs): install "
            "shift_jax again."
        )
    variables, metadata = read_safetensors(record.path)
    return variables, json.loads(metadata["config"])
