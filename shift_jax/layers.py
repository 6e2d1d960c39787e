"""Flax layers built on the shift operation: `Shift`, `ShiftConv`, `CSC` and `SC2`.

    from shift_jax.layers import CSC

    x = CSC(features=64, expansion=3)(x, train=train)

All of them take and return [..., H, W, C].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from shift_jax import ops
from shift_jax.errors import InputError, did_you_mean, positive_int

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, Shaped

Initializer = Callable[..., Any]
Shortcut = Literal["identity_or_projection", "pool_concat", "pool_pad", "none"]

_SHORTCUTS = ("identity_or_projection", "pool_concat", "pool_pad", "none")

he_init: Initializer = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""He et al. 2015: normal with variance 2 / fan_in."""

pytorch_init: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for convolutions and linear layers: uniform within ±1/√fan_in."""


def pytorch_bias_init(fan_in: int) -> Initializer:
    """PyTorch's default for biases: uniform within ±1/√fan_in of the layer's kernel."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def bias_init_for(kernel_init: Initializer, fan_in: int) -> Initializer:
    """The bias initializer that goes with a kernel's: PyTorch's with PyTorch's, else zeros."""
    if kernel_init is pytorch_init:
        return pytorch_bias_init(fan_in)
    return nn.initializers.zeros_init()


class NormFactory(Protocol):
    """Makes the normalisation layer that follows a convolution."""

    def __call__(
        self, train: bool, *, dtype: Any = None, param_dtype: Any = jnp.float32, name: str
    ) -> nn.Module: ...


def batch_norm(train: bool, *, epsilon: float = 1e-5, **kwargs) -> nn.Module:
    """BatchNorm with the constants of the authors' PyTorch code (its momentum 0.1 is 0.9 here).

    Under `jax.jit` with a batch sharded over devices the statistics are the global batch's.
    """
    return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=epsilon, **kwargs)


def middle_channels(expansion: float, reference: int) -> int:
    """Returns int(expansion · reference); InputError when that is not at least one channel."""
    if not isinstance(expansion, int | float) or not math.isfinite(expansion):
        raise InputError(f"expansion is {expansion!r}, expected a number such as 3.")
    if int(expansion * reference) < 1:
        raise InputError(
            f"expansion {expansion!r} of {reference} channels leaves no channel in the middle: "
            f"expected a number of at least 1/{reference}."
        )
    return int(expansion * reference)


def _hashable(offsets) -> Any:
    """Offsets as nested tuples, so that modules with explicit ones compare and hash."""
    if isinstance(offsets, list | tuple | np.ndarray):
        return tuple(_hashable(item) for item in offsets)
    return offsets.item() if isinstance(offsets, np.generic) else offsets


class Shift(nn.Module):
    """The shift operation as a layer without parameters; arguments as `shift_jax.ops.shift`."""

    kernel_size: int = 3
    dilation: int = 1
    order: ops.Order = "grouped"
    offsets: Any = None

    def __post_init__(self):
        self.offsets = _hashable(self.offsets)
        super().__post_init__()

    def __call__(self, x: Shaped[Array, "*b h w c"]) -> Shaped[Array, "*b h w c"]:
        return ops.shift(x, self.kernel_size, self.dilation, self.order, self.offsets)


class ShiftConv(nn.Module):
    """Shift followed by a pointwise convolution; `kernel_size=1` is the convolution alone.

    Attributes:
      features: output channels N.
      kernel_size, dilation, order, offsets: the shift, see `shift_jax.ops.shift`.
      stride: of the pointwise convolution, which keeps rows and columns 0, s, 2s, …
      use_bias: whether to add a learned bias.
      implementation: see `shift_jax.ops.shift_conv`.
      dtype: computation type; None is the common type of input and parameters.
      param_dtype: type of the parameters "kernel" (C, N) and "bias" (N,).
    """

    features: int
    kernel_size: int = 3
    dilation: int = 1
    stride: int = 1
    order: ops.Order = "grouped"
    offsets: Any = None
    use_bias: bool = False
    implementation: ops.Implementation | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = he_init
    bias_init: Initializer = nn.initializers.zeros_init()

    def __post_init__(self):
        self.offsets = _hashable(self.offsets)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "*b h w c"]) -> Float[Array, "*b h_out w_out n"]:
        features = positive_int("features", self.features)
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], features), self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        return ops.shift_conv(
            x,
            kernel,
            bias,
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            stride=self.stride,
            order=self.order,
            offsets=self.offsets,
            implementation=self.implementation,
        )


class CSC(nn.Module):
    """Conv-Shift-Conv module (Figure 3): 1×1, norm, ReLU, shift, 1×1, norm, ReLU, shortcut.

    No ReLU follows the shortcut.

    Attributes:
      features: output channels, the shortcut's included.
      expansion: E ≥ 1/channels; the middle has int(E · reference) channels, fractions allowed.
      expansion_reference: "in" (ShiftNet) or "out" (the CIFAR code): the channels E multiplies.
      kernel_size, dilation, order: the shift, see `shift_jax.ops.shift`.
      offsets: explicit offsets of the second shift, (middle channels, 2).
      stride: of the second pointwise convolution, so that space is mixed before subsampling.
      shortcut:
        "identity_or_projection": add the input; a strided pointwise convolution and norm of it
          where the shape changes (the authors' CIFAR code).
        "pool_concat": add the input; where the shape changes, the module's own path makes
          `features - in` channels and the average-pooled input is put before them (Section 2.3).
        "pool_pad": add the input; average-pooled and zero-padded in channels where the shape
          changes (ShiftNet-C).
        "none": no shortcut.
      norm: makes the normalisation of each convolution; None puts biases in its place.
      implementation: see `shift_jax.ops.shift_conv`.
      dtype, param_dtype: computation and parameter types.
      kernel_init: initializer of all pointwise kernels.
    """

    features: int
    expansion: float = 1
    expansion_reference: Literal["in", "out"] = "in"
    kernel_size: int = 3
    dilation: int = 1
    stride: int = 1
    order: ops.Order = "grouped"
    offsets: Any = None
    shortcut: Shortcut = "identity_or_projection"
    norm: NormFactory | None = batch_norm
    implementation: ops.Implementation | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = he_init

    # Whether a shift precedes the first pointwise convolution too.
    shift_first = False

    def __post_init__(self):
        self.offsets = _hashable(self.offsets)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], train: bool = False
    ) -> Float[Array, "*b h_out w_out features"]:
        positive_int("features", self.features)
        positive_int("stride", self.stride)
        features = self._path_features(x.shape[-1])
        y = self._conv(
            x,
            train,
            "1",
            features=self._middle_features(x.shape[-1]),
            kernel_size=self.kernel_size if self.shift_first else 1,
        )
        y = nn.relu(y)
        y = self._conv(
            y,
            train,
            "2",
            features=features,
            kernel_size=self.kernel_size,
            offsets=self.offsets,
            stride=self.stride,
        )
        return self._add_shortcut(x, nn.relu(y), train)

    def _conv(self, x: Array, train: bool, suffix: str, **kwargs) -> Array:
        y = ShiftConv(
            dilation=self.dilation,
            order=self.order,
            use_bias=self.norm is None,
            implementation=self.implementation,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=self.kernel_init,
            name=f"conv{suffix}",
            **kwargs,
        )(x)
        if self.norm is None:
            return y
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return self.norm(train, name=f"norm{suffix}", **types)(y)

    def _middle_features(self, in_features: int) -> int:
        if self.expansion_reference not in ("in", "out"):
            raise InputError(
                f"expansion_reference is {self.expansion_reference!r}, expected 'in' or 'out'."
            )
        reference = in_features if self.expansion_reference == "in" else self.features
        return middle_channels(self.expansion, reference)

    def _path_features(self, in_features: int) -> int:
        """Channels that the module's own path makes, given what the shortcut adds."""
        if self.shortcut not in _SHORTCUTS:
            raise InputError(
                f"shortcut is {self.shortcut!r}, expected one of {', '.join(_SHORTCUTS)}."
                f"{did_you_mean(self.shortcut, _SHORTCUTS)}"
            )
        if self.shortcut in ("identity_or_projection", "none") or self._keeps_shape(in_features):
            return self.features
        if self.shortcut == "pool_pad":
            if self.features < in_features:
                raise InputError(
                    f"shortcut 'pool_pad' cannot reduce {in_features} channels to "
                    f"{self.features}: use 'identity_or_projection' or more features."
                )
            return self.features
        if self.features <= in_features:
            raise InputError(
                f"shortcut 'pool_concat' puts {in_features} input channels before new ones, so "
                f"features must be more than that and not {self.features}."
            )
        return self.features - in_features

    def _keeps_shape(self, in_features: int) -> bool:
        return self.stride == 1 and in_features == self.features

    def _add_shortcut(self, x: Array, y: Array, train: bool) -> Array:
        if self.shortcut == "none":
            return y
        if self._keeps_shape(x.shape[-1]):
            return x.astype(y.dtype) + y
        if self.shortcut == "identity_or_projection":
            shortcut = self._conv(
                x, train, "_shortcut", features=self.features, kernel_size=1, stride=self.stride
            )
            return shortcut + y
        pooled = x.astype(y.dtype)
        if self.stride > 1:
            # ShuffleNet's window; with padding 1 the output has ceil(H / stride) rows as y has.
            images = pooled.reshape(-1, *pooled.shape[-3:])
            images = nn.avg_pool(images, (3, 3), (self.stride,) * 2, [(1, 1), (1, 1)])
            pooled = images.reshape(*pooled.shape[:-3], *images.shape[-3:])
        if self.shortcut == "pool_concat":
            return jnp.concatenate([pooled, y], axis=-1)
        widen = [(0, 0)] * (y.ndim - 1) + [(0, self.features - x.shape[-1])]
        return jnp.pad(pooled, widen) + y


class SC2(CSC):
    """Shift-Conv-Shift-Conv module (Figure 3): a `CSC` with one more shift in front of it.

    Both shifts have the same kernel size and dilation, which widens the receptive field;
    all attributes are those of `CSC`.
    """

    shift_first = True
