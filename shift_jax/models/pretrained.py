"""Networks with the trained weights that come with the package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from shift_jax.errors import InputError
from shift_jax.models.network import Network
from shift_jax.models.registry import create_model, model_record
from shift_jax.weights.shipped import find_weights, read_weights

# Arguments that may differ from those of the training.
_FREE = ("features_only", "dtype", "param_dtype", "implementation")


def load_pretrained(
    name: str, tag: str | None = None, num_classes: int | None = None, **kwargs
) -> tuple[Network, dict[str, Any]]:
    """Returns a network with trained weights that come with the package.

        >>> import jax, numpy as np
        >>> from shift_jax import load_pretrained, model_record
        >>> model, variables = load_pretrained("shiftresnet20.digits")
        >>> weights = {each.name: each for each in model_record("shiftresnet20").weights}
        >>> record = weights["shiftresnet20.digits"]
        >>> pixels = np.zeros((1, 8, 8, 1), np.uint8)
        >>> images = (pixels / 255 - record.mean) / record.std
        >>> jax.jit(model.apply)(variables, images).shape
        (1, 10)

    `load_pretrained("shiftresnet20", tag="cifar100", expansion=3)` names the same weights as
    `load_pretrained("shiftresnet20-3.cifar100")`.

    Args:
      name: of the weights, one of `list_pretrained()`, or of the network.
      tag: which weights of the network, such as the dataset; None where the arguments tell.
      num_classes: None is as trained; 0 leaves the classifier out.
      **kwargs: arguments that the weights were trained with, such as `expansion`, which choose
        among several weights; and `features_only`, `dtype`, `param_dtype` and `implementation`,
        which are free, as for `create_model`.

    Returns:
      `(model, variables)`. The variables are nested dicts of numpy arrays of `param_dtype`, exactly
      those that the model has.

    Raises:
      InputError: no weights have this name, tag and arguments, or several do.
    """
    if "." not in str(name):
        model_record(name)  # A misspelled network is told before absent weights.
    trained = {key: value for key, value in kwargs.items() if key not in _FREE}
    weights = find_weights(name, tag, trained)
    if num_classes is None:
        num_classes = weights.num_classes
    if num_classes not in (0, weights.num_classes):
        raise InputError(
            f"The weights {weights.name} are for {weights.num_classes} classes, not for "
            f"{num_classes!r}: use num_classes=0 and add a classifier of your own."
        )
    model = create_model(weights.model, num_classes=num_classes, **{**weights.arguments, **kwargs})
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
