"""Networks by name."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn

from shift_jax.errors import InputError, did_you_mean, positive_int


@dataclass(frozen=True)
class ModelRecord:
    """What the registry knows about one network.

    Attributes:
      name: as given to `create_model`.
      build: called with `num_classes=` and the model's own keyword arguments.
      image_shape: (height, width, channels) the network was published for.
    """

    name: str
    build: Callable[..., nn.Module]
    image_shape: tuple[int, int, int]


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


def create_model(name: str, num_classes: int = 10, **kwargs) -> nn.Module:
    """Creates a network by name.

        model = create_model("shiftresnet20", num_classes=100, expansion=3)
        variables = model.init(jax.random.key(0), images, train=False)
        logits = model.apply(variables, images, train=False)

    Args:
      name: one of `list_models()`.
      num_classes: width of the classifier.
      **kwargs: arguments of the network, such as `expansion`, `initialization` or `dtype`;
        the docstrings of `shift_jax.models.cifar.resnet`, `shiftresnet` and `depthwiseresnet`
        explain them.

    Returns:
      A linen module from images [B, H, W, C] to logits [B, num_classes].

    Raises:
      InputError: unknown name or argument (the nearest ones are offered), or a bad value.
    """
    record = model_record(name)
    parameters = inspect.signature(record.build).parameters
    allowed = [key for key in parameters if key != "num_classes"]
    for key in kwargs:
        if key not in allowed:
            raise InputError(
                f"Model {name!r} has no argument {key!r}, only {', '.join(allowed)}."
                f"{did_you_mean(key, allowed)}"
            )
    return record.build(num_classes=positive_int("num_classes", num_classes), **kwargs)
