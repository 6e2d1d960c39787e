"""Networks by name."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from shift_jax.errors import InputError, did_you_mean, positive_int
from shift_jax.models.network import Network

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Arguments that every network takes; `Network` explains them.
_COMMON = ("features_only", "initialization", "dtype", "param_dtype")


class Count(NamedTuple):
    """Exact size of one configuration of a network.

    Attributes:
      arguments: of `create_model`, `num_classes` perhaps among them; others are the defaults.
      parameters: trained ones.
      macs: multiply-accumulates of one image of the record's shape.
    """

    arguments: dict[str, Any]
    parameters: int
    macs: int


@dataclass(frozen=True)
class ModelRecord:
    """What the registry knows about one network.

    Attributes:
      name: as given to `create_model`.
      build: called with `num_classes=`, the network's own arguments and the common ones.
      paper: where the network was published.
      table: of the Shift paper, "" if it is in none.
      counts: the published configurations, the default one first.
      image_shape: (height, width, channels) the network was published for.
      num_classes: default width of the classifier; 0 is none by default, None never one.
      mean, std: of the channels, for pixels in 0..1.
      crop: fraction of an image's shorter side that the evaluation crop keeps.
    """

    name: str
    build: Callable[..., Network]
    paper: str
    table: str
    counts: tuple[Count, ...]
    image_shape: tuple[int, int, int] = (224, 224, 3)
    num_classes: int | None = 1000
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop: float = 0.875

    @property
    def parameters(self) -> int:
        """Trained parameters of the default configuration."""
        return self.counts[0].parameters

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the default configuration for one image of `image_shape`."""
        return self.counts[0].macs


_RECORDS: dict[str, ModelRecord] = {}


def register(record: ModelRecord) -> None:
    """Adds a network; raises ValueError when the name is taken."""
    if record.name in _RECORDS:
        raise ValueError(f"A model named {record.name!r} is already registered.")
    _RECORDS[record.name] = record


def model_record(name: str) -> ModelRecord:
    """Returns the record of one network; InputError with the nearest names when unknown."""
    if name not in _RECORDS:
        raise InputError(
            f"There is no model named {name!r}.{did_you_mean(name, _RECORDS)} "
            "shift_jax.list_models() lists all names."
        )
    return _RECORDS[name]


def list_models(pattern: str = "*") -> list[str]:
    """Returns the sorted names that match a shell pattern such as "shift*"."""
    return sorted(fnmatch.filter(_RECORDS, pattern))


def create_model(name: str, num_classes: int | None = None, **kwargs) -> Network:
    """Creates a network by name.

        model = create_model("shiftresnet20", num_classes=100, expansion=3)
        variables = model.init(jax.random.key(0), images, train=False)
        logits = model.apply(variables, images, train=False)

    With `features_only=True` it returns the feature maps of its stages instead of logits:

        for stage in create_model("shiftnet_a", features_only=True).apply(variables, images):
            print(stage.name, stage.channels, stage.stride, stage.array.shape)

    Args:
      name: one of `list_models()`.
      num_classes: width of the classifier; 0 for the pooled features before it; None is the
        published one.
      **kwargs: `features_only`, `initialization`, `dtype` and `param_dtype`, explained by
        `shift_jax.models.network.Network`, and the network's own arguments, such as `expansion`
        or `width`, explained by `help(shift_jax.models.model_record(name).build)`.

    Returns:
      A linen module from images [B, H, W, C] to logits [B, num_classes], features
      [B, features] or a tuple of `FeatureMap`; the networks of style transfer, which have no
      classes, to images [B, H, W, 3].

    Raises:
      InputError: unknown name or argument (the nearest ones are offered), or a bad value.
    """
    record = model_record(name)
    own = inspect.signature(record.build).parameters.values()
    allowed = [p.name for p in own if p.kind is p.KEYWORD_ONLY] + list(_COMMON)
    for key in kwargs:
        if key not in allowed:
            raise InputError(
                f"Model {name!r} has no argument {key!r}, only {', '.join(allowed)}."
                f"{did_you_mean(key, allowed)}"
            )
    if num_classes is None:
        num_classes = record.num_classes
    elif record.num_classes is None:
        raise InputError(f"Model {name!r} makes images and has no classes: leave num_classes out.")
    if num_classes:
        num_classes = positive_int("num_classes", num_classes)
    return record.build(num_classes=num_classes or 0, **kwargs)
