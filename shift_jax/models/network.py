"""What all networks share: their common arguments, feature maps and the classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp

from shift_jax.errors import InputError, check_choice
from shift_jax.layers import Initializer, bias_init_for, he_init, pytorch_init

if TYPE_CHECKING:
    import numpy as np
    from jax import Array
    from jaxtyping import Float

Initialization = Literal["he", "pytorch"]

_INITIALIZERS = {"he": he_init, "pytorch": pytorch_init}


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class FeatureMap:
    """The output of one stage of a network; a pytree whose only leaf is the array.

    Attributes:
      name: name of the stage.
      stride: distance in image pixels between neighboring rows or columns of the map.
      array: [B, about H / stride, about W / stride, channels].
    """

    name: str = field(metadata={"static": True})
    stride: int = field(metadata={"static": True})
    array: Float[Array, "b h w c"]

    @property
    def channels(self) -> int:
        """Number of channels of the map."""
        return self.array.shape[-1]


class Network(nn.Module, kw_only=True):
    """Base class of all networks.

    Attributes:
      num_classes: width of the classifier; 0 returns the features before it, [B, features].
      features_only: return a tuple with the `FeatureMap` of each stage, from first to last.
      initialization: "he" (normal with variance 2 / fan_in, zero biases) or "pytorch" (uniform
        within ±1/√fan_in, biases too).
      dtype: computation dtype; None is the common dtype of images and parameters. Logits are
        always float32.
      param_dtype: dtype of the parameters.
    """

    num_classes: int = 1000
    features_only: bool = False
    initialization: Initialization = "he"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    # Flax's types allow for what nobody asks for here, such as `mutable`.
    init: ClassVar[Callable[..., dict[str, Any]]]
    apply: ClassVar[Callable[..., Any]]

    def __post_init__(self):
        check_choice("initialization", self.initialization, _INITIALIZERS)
        check_choice("features_only", self.features_only, (False, True))
        _check_dtype("dtype", self.dtype or jnp.float32)
        _check_dtype("param_dtype", self.param_dtype)
        super().__post_init__()

    @property
    def kernel_init(self) -> Initializer:
        """Initializer of all kernels."""
        return _INITIALIZERS[self.initialization]

    @property
    def common(self) -> dict[str, Any]:
        """Arguments that every layer takes from its network."""
        return {
            "kernel_init": self.kernel_init,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }

    def classify(self, x: Float[Array, "b features"]) -> Float[Array, "b num_classes"]:
        """Returns float32 logits, or the features themselves if there are no classes."""
        if self.num_classes == 0:
            return x
        x = self.dense(x, self.num_classes, name="classifier")
        return x.astype(jnp.float32)

    def hidden_layers(
        self, x: Float[Array, "b h w c"], features: int, dropout: float, train: bool
    ) -> Float[Array, "b features"]:
        """Applies two linear layers with ReLU and dropout to the flattened map (AlexNet, VGG)."""
        x = x.reshape(x.shape[0], -1)
        for name in ("hidden1", "hidden2"):
            x = nn.relu(self.dense(x, features, name=name))
            x = nn.Dropout(dropout, deterministic=not train)(x)
        return x

    def dense(self, x: Float[Array, "b c"], features: int, name: str) -> Float[Array, "b features"]:
        """Applies a linear layer with bias."""
        bias_init = bias_init_for(self.kernel_init, fan_in=x.shape[-1])
        return nn.Dense(features, bias_init=bias_init, name=name, **self.common)(x)


def check_width(width: float, channels: int) -> None:
    """Raises InputError unless a factor of `width` leaves at least one of the channels."""
    if not isinstance(width, int | float) or not 1 / channels <= width < 100:
        raise InputError(
            f"width is {width!r}, expected a number from 1/{channels} to 100, such as 0.5."
        )


def check_dropout(rate: float) -> None:
    """Raises InputError unless `rate` is a fraction from 0 to below 1."""
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise InputError(f"dropout is {rate!r}, expected a fraction from 0 to below 1.")


def _check_dtype(name: str, dtype: Any) -> None:
    try:
        is_float = jnp.issubdtype(jnp.dtype(dtype), jnp.floating)
    except TypeError:
        is_float = False
    if not is_float:
        raise InputError(
            f"{name} is {dtype!r}, expected a floating-point type such as 'float32' or 'bfloat16'."
        )


def check_images(x: Array | np.ndarray, smallest: int = 1) -> None:
    """Raises InputError unless `x` is [B, H, W, C] with sides of at least `smallest` pixels.

    Symbolic sides, of `jax.export`, pass: their sizes are not known yet.
    """
    known = [side for side in x.shape[1:3] if not jax.export.is_symbolic_dim(side)]
    if x.ndim != 4 or min(known, default=smallest) < smallest or not x.shape[3]:
        raise InputError(
            f"Images of shape {x.shape} do not fit the network: expected [batch, height, width, "
            f"channels] with sides of at least {smallest} pixels."
        )
