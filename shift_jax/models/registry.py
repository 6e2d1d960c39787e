"""Networks by name."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from shift_jax.errors import InputError, did_you_mean
from shift_jax.models.network import Network
from shift_jax.weights.convert import TensorLayout
from shift_jax.weights.shipped import WeightRecord, shipped_weights
from shift_jax.weights.torch.layout import TorchLayout

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Arguments that every network takes; `Network` explains them.
_COMMON = ("features_only", "initialization", "dtype", "param_dtype")


@dataclass(frozen=True)
class Count:
    """Exact size of one configuration of a network.

    Attributes:
      arguments: of `create_model`, where they are not the defaults.
      parameters: number of trained parameters.
      macs: multiply-accumulates for one image of the record's shape.
    """

    arguments: Mapping[str, Any]
    parameters: int
    macs: int

    def __post_init__(self):
        object.__setattr__(self, "arguments", MappingProxyType(dict(self.arguments)))


@dataclass(frozen=True, eq=False)
class ModelRecord:
    """What the registry knows about one network.

    Attributes:
      name: as given to `create_model`.
      build: makes the network from `num_classes`, its own arguments and the common ones.
      paper: publication of the network.
      table: tables of the Shift paper that list the network; "" if none does.
      counts: sizes of the published configurations, the default one first.
      image_shape: (height, width, channels) of the published network's images.
      num_classes: default width of the classifier; 0 if it has none by default, None if it cannot
        have one.
      mean, std: of the channels, for pixels in 0..1.
      crop: fraction of the shorter side that the network's paper keeps of an image to evaluate;
        `eval.py` resizes the shorter side accordingly and crops the center.
      torch_layout: maps the network's arguments to the layout of its weights in PyTorch; None if
        no PyTorch implementation is known.
      keras_layout: returns the layout of the weights in Keras; None if Keras has none.
      caffe_layout: maps the network's arguments to the layout of its weights in Caffe; None if no
        Caffe implementation is known.
    """

    name: str
    build: Callable[..., Network]
    paper: str = ""
    table: str = ""
    counts: tuple[Count, ...] = ()
    image_shape: tuple[int, int, int] = (224, 224, 3)
    num_classes: int | None = 1000
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    crop: float = 0.875
    torch_layout: Callable[[Mapping[str, Any]], TorchLayout] | None = None
    keras_layout: Callable[[], TensorLayout] | None = None
    caffe_layout: Callable[[Mapping[str, Any]], TensorLayout] | None = None

    def known_torch_layout(self, arguments: Mapping[str, Any]) -> TorchLayout:
        """Returns the layout in PyTorch of a network that has one, with these arguments."""
        assert self.torch_layout is not None
        return self.torch_layout(arguments)

    @property
    def parameters(self) -> int | None:
        """Number of trained parameters of the default configuration, if recorded."""
        return self.counts[0].parameters if self.counts else None

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of the default configuration for one image, if recorded."""
        return self.counts[0].macs if self.counts else None

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the arguments of `create_model` that this network has and not every network."""
        parameters = inspect.signature(self.build).parameters.values()
        return tuple(
            p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        )

    @property
    def help(self) -> str:
        """Describes the network and its arguments."""
        return inspect.getdoc(getattr(self.build, "func", self.build)) or ""

    @property
    def weights(self) -> tuple[WeightRecord, ...]:
        """Records of the trained weights in this package: their source, license and accuracy."""
        return tuple(record for record in shipped_weights() if record.model == self.name)


_RECORDS: dict[str, ModelRecord] = {}


def register(record: ModelRecord) -> None:
    """Adds a network to the registry; raises ValueError if its name is taken."""
    if record.name in _RECORDS:
        raise ValueError(f"A model named {record.name!r} is already registered.")
    _RECORDS[record.name] = record


def model_record(name: str) -> ModelRecord:
    """Returns what the registry knows about one network: its paper, size, images and weights.

        >>> from shift_jax import model_record
        >>> record = model_record("shiftresnet20")
        >>> record.paper, record.image_shape, record.num_classes
        ('Wu et al. 2018, arXiv:1711.08141, Section 3.1', (32, 32, 3), 10)
        >>> record.parameters, record.macs
        (34906, 5948032)

    `print(record.help)` explains the network and its arguments.

    Raises:
      InputError: no network has this name; the message has the nearest names.
    """
    if not isinstance(name, str) or name not in _RECORDS:
        raise InputError(
            f"There is no model named {name!r}.{did_you_mean(name, _RECORDS)} "
            "shift_jax.list_models() lists all names."
        )
    return _RECORDS[name]


def list_models(pattern: str = "*") -> list[str]:
    """Returns the sorted names of the networks that match a shell pattern.

        >>> from shift_jax import list_models
        >>> list_models("shiftnet*")
        ['shiftnet_a', 'shiftnet_b', 'shiftnet_c']

    Args:
      pattern: a shell pattern for the names of networks.
    """
    return sorted(fnmatch.filter(_RECORDS, pattern))


def create_model(name: str, num_classes: int | None = None, **kwargs) -> Network:
    """Creates a network by name.

        >>> import jax, jax.numpy as jnp
        >>> from shift_jax import create_model
        >>> model = create_model("shiftresnet20", num_classes=100, expansion=3)
        >>> images = jnp.zeros((2, 32, 32, 3))
        >>> logits, variables = jax.jit(model.init_with_output)(jax.random.key(0), images)
        >>> logits.shape
        (2, 100)

    With `features_only=True` the network returns the feature maps of its stages:

        >>> backbone = create_model("shiftresnet20", expansion=3, features_only=True)
        >>> stages = jax.eval_shape(backbone.apply, variables, images)
        >>> [(stage.name, stage.array.shape) for stage in stages]
        [('stem', (2, 32, 32, 16)), ('group1', (2, 32, 32, 16)),
         ('group2', (2, 16, 16, 32)), ('group3', (2, 8, 8, 64))]

    Networks created with equal arguments are equal and hash alike, so that one can be a static
    argument of `jax.jit`.

    Args:
      name: one of `list_models()`.
      num_classes: width of the classifier; 0 returns the pooled features before it; None is the
        published number.
      **kwargs: `features_only`, `initialization`, `dtype` and `param_dtype`, which
        `shift_jax.models.network.Network` explains, and the network's own arguments, such as
        `expansion` or `width`, which `print(shift_jax.model_record(name).help)` explains.

    Returns:
      A linen module from images [B, H, W, C] to float32 logits [B, num_classes], to features
      [B, features] or to a tuple of `FeatureMap`. Networks for style transfer have no classes and
      return images [B, H, W, 3].

    Raises:
      InputError: an unknown name or argument, with the nearest ones in the message, or a bad value.
    """
    check_arguments(name, kwargs)
    record = model_record(name)
    if num_classes is None:
        num_classes = record.num_classes
    elif record.num_classes is None:
        raise InputError(
            f"Model {name!r} returns images and has no classes: leave num_classes out."
        )
    elif not isinstance(num_classes, int | np.integer) or num_classes < 0 or num_classes is True:
        raise InputError(
            f"num_classes is {num_classes!r}, expected a positive integer, or 0 for features."
        )
    return record.build(num_classes=int(num_classes or 0), **kwargs)


def check_arguments(name: str, arguments: Iterable[str], others: Sequence[str] = ()) -> None:
    """Raises InputError unless a network has all of these arguments.

    Args:
      name: one of `list_models()`.
      arguments: names of arguments other than `num_classes`.
      others: more names that the message may suggest for a misspelled argument.
    """
    record = model_record(name)
    allowed = [key for key in dict.fromkeys((*record.arguments, *_COMMON)) if key != "num_classes"]
    for key in arguments:
        if key not in allowed:
            raise InputError(
                f"Model {name!r} has no argument {key!r}, only {', '.join(allowed)}."
                f"{did_you_mean(key, [*allowed, *others])}"
            )
