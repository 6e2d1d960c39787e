"""Networks by name."""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shift_jax.errors import InputError, did_you_mean
from shift_jax.models.network import Network
from shift_jax.weights.convert import Source
from shift_jax.weights.shipped import WeightRecord, find_weights, read_weights, shipped_weights
from shift_jax.weights.torch.layout import TorchLayout

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Arguments that every network takes; `Network` explains them.
_COMMON = ("features_only", "initialization", "dtype", "param_dtype")
# Those that trained weights leave open.
_FREE = ("features_only", "dtype", "param_dtype", "implementation")


@dataclass(frozen=True)
class Count:
    """Exact size of one configuration of a network.

    Attributes:
      arguments: of `create_model`, `num_classes` perhaps among them; others are the defaults.
      parameters: trained ones.
      macs: multiply-accumulates of one image of the record's shape.
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
      build: called with `num_classes=`, the network's own arguments and the common ones.
      paper: where the network was published.
      table: of the Shift paper, "" if it is in none.
      counts: the published configurations, the default one first.
      image_shape: (height, width, channels) the network was published for.
      num_classes: default width of the classifier; 0 is none by default, None never one.
      mean, std: of the channels, for pixels in 0..1.
      torch_layout: from the network's arguments to the layout of its weights in PyTorch; None where
        no PyTorch implementation is known.
      keras_source: the source of its weights in Keras, None where there are none.
      crop: fraction of an image's shorter side that evaluation crops keep in the network's paper;
        `eval.py` scales the shorter side to the network's size and takes the centre.
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
    keras_source: Callable[[], Source] | None = None

    @property
    def parameters(self) -> int | None:
        """Trained parameters of the default configuration, where they are recorded."""
        return self.counts[0].parameters if self.counts else None

    @property
    def macs(self) -> int | None:
        """Multiply-accumulates of the default configuration for one image of `image_shape`."""
        return self.counts[0].macs if self.counts else None

    @property
    def arguments(self) -> tuple[str, ...]:
        """Names of the arguments that not every network has."""
        parameters = inspect.signature(self.build).parameters.values()
        return tuple(
            p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
        )

    @property
    def help(self) -> str:
        """What the network is and what its arguments mean."""
        return inspect.getdoc(getattr(self.build, "func", self.build)) or ""

    @property
    def weights(self) -> tuple[WeightRecord, ...]:
        """Records of the trained weights that come with the package: source, licence, accuracy."""
        return tuple(record for record in shipped_weights() if record.model == self.name)


_RECORDS: dict[str, ModelRecord] = {}


def register(record: ModelRecord) -> None:
    """Adds a network; raises ValueError when the name is taken."""
    if record.name in _RECORDS:
        raise ValueError(f"A model named {record.name!r} is already registered.")
    _RECORDS[record.name] = record


def model_record(name: str) -> ModelRecord:
    """Returns the record of one network; InputError with the nearest names when unknown."""
    if not isinstance(name, str) or name not in _RECORDS:
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
        or `width`, explained by `print(shift_jax.models.model_record(name).help)`.

    Returns:
      A linen module from images [B, H, W, C] to logits [B, num_classes], features
      [B, features] or a tuple of `FeatureMap`; the networks of style transfer, which have no
      classes, to images [B, H, W, 3].

    Raises:
      InputError: unknown name or argument (the nearest ones are offered), or a bad value.
    """
    record = model_record(name)
    allowed = [key for key in dict.fromkeys((*record.arguments, *_COMMON)) if key != "num_classes"]
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
    elif not isinstance(num_classes, int | np.integer) or num_classes < 0 or num_classes is True:
        raise InputError(
            f"num_classes is {num_classes!r}, expected a positive integer, or 0 for the features."
        )
    return record.build(num_classes=int(num_classes or 0), **kwargs)


def load_pretrained(
    name: str, tag: str | None = None, num_classes: int | None = None, **kwargs
) -> tuple[Network, dict[str, Any]]:
    """Returns a network with trained weights that come with the package.

        model, variables = load_pretrained("shiftresnet20", expansion=3, tag="cifar100")
        logits = model.apply(variables, images, train=False)

    Pixels in 0..1 are to be normalised by the `mean` and `std` of the weights' record, which is
    among `model_record(name).weights`.

    Args:
      name: of the network.
      tag: which weights, such as the dataset; None where the arguments tell them.
      num_classes: None is as trained; 0 leaves the classifier out.
      **kwargs: those the weights were trained with, such as `expansion`, which choose among
        several; and, to choose freely, `features_only`, `dtype`, `param_dtype` and
        `implementation`, as for `create_model`.

    Returns:
      `(model, variables)`; the variables are nested dicts of numpy arrays of `param_dtype`, those
      that the model has and no others.

    Raises:
      InputError: no weights with that tag and those arguments, or several.
    """
    model_record(name)
    trained = {key: value for key, value in kwargs.items() if key not in _FREE}
    weights = find_weights(name, tag, trained)
    if num_classes is None:
        num_classes = weights.num_classes
    if num_classes not in (0, weights.num_classes):
        raise InputError(
            f"The weights {weights.name} are of {weights.num_classes} classes and not of "
            f"{num_classes!r}: take num_classes=0 and put a classifier of your own after it."
        )
    model = create_model(name, num_classes=num_classes, **{**weights.arguments, **kwargs})
    images = jax.ShapeDtypeStruct((1, *weights.image_shape), jnp.float32)
    expected = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    return model, _restricted(read_weights(weights)[0], expected)


def _restricted(variables: dict[str, Any], expected: Mapping[str, Any]) -> dict[str, Any]:
    """The leaves of `expected`, in its types."""
    return {
        key: _restricted(variables[key], value)
        if isinstance(value, Mapping)
        else variables[key].astype(value.dtype)
        for key, value in expected.items()
    }
