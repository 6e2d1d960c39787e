"""The trained weights that come with the package, and what is known of each."""

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
    """What is known of one file, `NAME.TAG.safetensors`, from the `.json` beside it.

    Attributes:
      model, tag: its name.
      arguments: of `create_model`.
      num_classes: width of the classifier, None for a network of images, which has none.
      image_shape: (height, width, channels) of the training images.
      mean, std: of the channels, for pixels in 0..1.
      trained_on: dataset and split.
      recipe: the command that trained it.
      top1: accuracy as a fraction, on `evaluated_on`; None for a network without classes.
      evaluated_on: dataset and split, "" where there is no accuracy.
      licence: of the weights.
      source: who trained them.
      sha256: of the file, in hexadecimal.
    """

    model: str
    tag: str
    arguments: Mapping[str, Any]
    num_classes: int | None
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    trained_on: str
    recipe: str
    top1: float | None = None
    evaluated_on: str = ""
    licence: str
    source: str
    sha256: str

    @property
    def path(self) -> Path:
        """The weight file."""
        return _FILES / f"{self.model}.{self.tag}.safetensors"


@cache
def shipped_weights() -> tuple[WeightRecord, ...]:
    """Returns the records of all shipped files, by name."""
    records = []
    for path in sorted(_FILES.glob("*.json")):
        fields = json.loads(path.read_text())
        for key in ("image_shape", "mean", "std"):
            fields[key] = tuple(fields[key])
        model, tag = path.name.removesuffix(".json").split(".", 1)
        fields["arguments"] = MappingProxyType(fields["arguments"])
        records.append(WeightRecord(model=model, tag=tag, **fields))
    return tuple(records)


def list_pretrained(pattern: str = "*") -> list[str]:
    """Returns the sorted names `MODEL.TAG` that match a shell pattern."""
    return fnmatch.filter([f"{w.model}.{w.tag}" for w in shipped_weights()], pattern)


def find_weights(model: str, tag: str | None) -> WeightRecord:
    """Returns one record; `tag` may be None where a model has one only.

    Raises:
      InputError: no such weights, or several and no tag.
    """
    tags = {record.tag: record for record in shipped_weights() if record.model == model}
    if not tags:
        raise InputError(
            f"No trained weights of {model!r} come with this package, only of "
            f"{', '.join(list_pretrained())}."
        )
    if tag is None and len(tags) == 1:
        return next(iter(tags.values()))
    if tag not in tuple(tags):
        raise InputError(
            f"{model!r} has no weights with the tag {tag!r}, only {', '.join(tags)}."
            f"{did_you_mean(str(tag), tags)}"
        )
    return tags[tag]


def read_weights(record: WeightRecord) -> dict[str, Any]:
    """Returns the variables of a shipped file, as nested dicts of numpy arrays.

    Raises:
      InputError: the file is missing or is not the one that was shipped.
    """
    if not record.path.exists() or sha256(record.path) != record.sha256:
        raise InputError(
            f"{record.path} is missing or is not the file that was shipped (its SHA-256 differs): "
            "install shift_jax again."
        )
    return read_safetensors(record.path)[0]
