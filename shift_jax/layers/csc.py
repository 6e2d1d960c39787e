"""The paper's modules: Conv-Shift-Conv and Shift-Conv-Shift-Conv (Figure 3)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

import flax.linen as nn
import jax.numpy as jnp

from shift_jax import ops
from shift_jax.errors import InputError, did_you_mean, positive_int
from shift_jax.layers.expansion import middle_channels
from shift_jax.layers.initializers import Initializer, he_init
from shift_jax.layers.learned_shift import LEARNED, OffsetsInit, ShiftKind, check_shift
from shift_jax.layers.norm import BatchNorm, NormFactory, batch_norm
from shift_jax.layers.shift_conv import ShiftConv, hashable
from shift_jax.ops.channels import per_channel

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

Shortcut = Literal["identity_or_projection", "pool_concat", "pool_pad", "none"]

_SHORTCUTS = ("identity_or_projection", "pool_concat", "pool_pad", "none")


class CSC(nn.Module):
    """Conv-Shift-Conv module (Figure 3): 1×1, norm, ReLU, shift, 1×1, norm, ReLU, shortcut.

    No ReLU follows the shortcut. It takes [..., H, W, C] and returns [..., ⌈H/s⌉, ⌈W/s⌉, features].

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from shift_jax import CSC
        >>> layer = CSC(features=32, expansion=3, stride=2)
        >>> x = jnp.ones((1, 8, 8, 16))
        >>> variables = layer.init(jax.random.key(0), x)
        >>> y, updates = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        >>> y.shape
        (1, 4, 4, 32)

    Attributes:
      features: output channels, those of the shortcut included.
      expansion: E, fractions allowed; the middle has int(E · reference) channels.
      expansion_reference: which channels E multiplies, those of the input ("in", ShiftNet) or of
        the output ("out", the CIFAR code).
      kernel_size, dilation, order: the shift, see `shift_jax.shift`.
      shift: "fixed" or, to learn the offsets, "active" (`ActiveShift`) or "sparse" (`SparseShift`).
      offsets_init: of learned shifts, "grid" (as if fixed) or "uniform", see `ActiveShift`.
      offsets: explicit offsets of the second shift, (middle channels, 2).
      direction_weights: how the shifts divide their channels among the directions, see `Shift`.
      stride: s of the second pointwise convolution, so that the shift mixes space before
        subsampling.
      shortcut:
        "identity_or_projection": adds the input; where the shape changes, a strided pointwise
          convolution and norm of it (the authors' CIFAR code).
        "pool_concat": adds the input; where the shape changes, prepends the average-pooled input
          to the `features - in` channels of the module's own path (Section 2.3).
        "pool_pad": adds the input; where the shape changes, average-pooled and padded with zero
          channels (ShiftNet-C).
        "none": no shortcut.
      norm: makes the normalization after each convolution; None replaces it by biases.
      implementation: see `shift_jax.shift_conv`.
      dtype: of the computation; None is the common dtype of input and parameters.
      param_dtype: of the parameters.
      kernel_init: initializer of all pointwise kernels.

    Raises:
      InputError: a size, expansion or shortcut that is not valid, or does not fit the input.
    """

    features: int
    expansion: float = 1
    expansion_reference: Literal["in", "out"] = "in"
    kernel_size: int = 3
    dilation: int = 1
    stride: int = 1
    order: ops.Order = "grouped"
    shift: ShiftKind = "fixed"
    offsets_init: OffsetsInit = "grid"
    offsets: Any = None
    direction_weights: Any = None
    shortcut: Shortcut = "identity_or_projection"
    norm: NormFactory | None = batch_norm
    implementation: ops.Implementation | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = he_init

    # Whether a shift also precedes the first pointwise convolution.
    shift_first = False

    def __post_init__(self):
        self.offsets = hashable(self.offsets)
        self.direction_weights = hashable(self.direction_weights)
        super().__post_init__()

    @nn.compact
    def __call__(
        self, x: Float[Array, "*b h w c"], train: bool = False
    ) -> Float[Array, "*b h_out w_out features"]:
        positive_int("features", self.features)
        positive_int("stride", self.stride)
        conv1 = self._conv(
            "1",
            self._middle_features(x.shape[-1]),
            **(self._fixed_shift() if self.shift_first else {"kernel_size": 1}),
        )
        conv2 = self._conv(
            "2",
            self._path_features(x.shape[-1]),
            offsets=self.offsets,
            stride=self.stride if self.shift == "fixed" else 1,
            **self._fixed_shift(),
        )
        norm1, norm2 = self._norm("1", train), self._norm("2", train)
        if not (self._folds(norm1) and self._folds(norm2)):
            y = self._learned_shift("1", x, 1) if self.shift_first else x
            y = nn.relu(norm1(conv1(y)))
            y = nn.relu(norm2(conv2(self._learned_shift("2", y, self.stride))))
        elif train:
            y, statistics = conv1(x, statistics=True)
            scale, bias = self._trained(norm1, y, statistics)
            y, statistics = conv2(
                y, prologue_scale=scale, prologue_bias=bias, prologue_relu=True, statistics=True
            )
            y = _affine(y, *self._trained(norm2, y, statistics), relu=True)
        else:
            scale, bias = norm1.coefficients(conv1.features)
            if self.shift_first:
                middle = conv1(x, out_scale=scale, bias=bias, relu=True)
                first = {}
            else:
                middle = x
                expand, bias = conv1.folded(x.shape[-1], scale, bias)
                first = {"expand": expand, "prologue_bias": bias, "prologue_relu": True}
            scale, bias = norm2.coefficients(conv2.features)
            if self.shortcut != "none" and self._keeps_shape(x.shape[-1]):
                first |= {"residual": x, "relu_before_residual": True}
                return conv2(middle, out_scale=scale, bias=bias, **first)
            y = conv2(middle, out_scale=scale, bias=bias, relu=True, **first)
        return self._add_shortcut(x, y, train)

    def _conv(self, suffix: str, features: int, **kwargs) -> ShiftConv:
        return ShiftConv(
            features,
            dilation=self.dilation,
            order=self.order,
            use_bias=self.norm is None,
            implementation=self.implementation,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=self.kernel_init,
            name=f"conv{suffix}",
            **kwargs,
        )

    def _fixed_shift(self) -> dict[str, Any]:
        """Returns arguments of a convolution: its shift, or none after a learned one."""
        check_shift(self.shift)
        if self.shift == "fixed":
            return {"kernel_size": self.kernel_size, "direction_weights": self.direction_weights}
        if self.offsets is not None or self.direction_weights is not None:
            raise InputError(
                f"shift is {self.shift!r}, which learns the offsets: leave offsets and "
                "direction_weights out."
            )
        return {"kernel_size": 1}

    def _learned_shift(self, suffix: str, x: Array, stride: int) -> Array:
        if self.shift == "fixed":
            return x
        return LEARNED[self.shift](
            stride,
            self.offsets_init,
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            order=self.order,
            name=f"shift{suffix}",
        )(x)

    def _norm(self, suffix: str, train: bool) -> Callable[[Array], Array]:
        if self.norm is None:
            return lambda y: y
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        return self.norm(train, name=f"norm{suffix}", **types)

    def _folds(self, norm) -> TypeGuard[BatchNorm]:
        """Whether the convolutions apply the normalizations that follow them.

        With the implementation "xla", every step stays an operation of its own.
        """
        return (
            isinstance(norm, BatchNorm)
            and norm.folds
            and ops.chosen_implementation(self.implementation) != "xla"
            # Initialization creates the variables in the order of the computation.
            and not self.is_initializing()
            and self.shift == "fixed"
        )

    @staticmethod
    def _trained(norm: BatchNorm, y: Array, statistics: tuple[Array, Array]):
        return norm.coefficients(y.shape[-1], statistics, math.prod(y.shape[:-1]))

    def _middle_features(self, in_features: int) -> int:
        if self.expansion_reference not in ("in", "out"):
            raise InputError(
                f"expansion_reference is {self.expansion_reference!r}, expected 'in' or 'out'."
            )
        reference = in_features if self.expansion_reference == "in" else self.features
        return middle_channels(self.expansion, reference)

    def _path_features(self, in_features: int) -> int:
        """Returns how many channels the module's own path makes beside the shortcut's."""
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
                f"shortcut 'pool_concat' prepends {in_features} input channels to new ones, so "
                f"features must be more than {in_features}, not {self.features}."
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
            return self._project(x, train) + y
        pooled = x.astype(y.dtype)
        if self.stride > 1:
            # ShuffleNet's window; padding 1 gives the ⌈H/s⌉ rows of y.
            images = pooled.reshape(math.prod(pooled.shape[:-3]), *pooled.shape[-3:])
            window, strides, pads = (3, 3), (self.stride,) * 2, [(1, 1), (1, 1)]
            # Flax takes pairs, too, which its annotation forgets.
            images = nn.avg_pool(images, window, strides, pads)  # pyright: ignore[reportArgumentType]
            pooled = images.reshape(*pooled.shape[:-3], *images.shape[-3:])
        if self.shortcut == "pool_concat":
            return jnp.concatenate([pooled, y], axis=-1)
        widen = [(0, 0)] * (y.ndim - 1) + [(0, self.features - x.shape[-1])]
        return jnp.pad(pooled, widen) + y

    def _project(self, x: Array, train: bool) -> Array:
        conv = self._conv("_shortcut", self.features, kernel_size=1, stride=self.stride)
        norm = self._norm("_shortcut", train)
        if not self._folds(norm):
            return norm(conv(x))
        if train:
            y, statistics = conv(x, statistics=True)
            return _affine(y, *self._trained(norm, y, statistics))
        scale, bias = norm.coefficients(self.features)
        return conv(x, out_scale=scale, bias=bias)


def _affine(y: Array, scale: Array, bias: Array, *, relu: bool = False) -> Array:
    """Returns y · scale + bias, computed in float32, in the dtype of y."""
    wide = y * per_channel(scale, y) + per_channel(bias, y)
    return (nn.relu(wide) if relu else wide).astype(y.dtype)


class SC2(CSC):
    """Shift-Conv-Shift-Conv module (Figure 3): a `CSC` with one more shift in front of it.

    The two shifts have the same kernel size and dilation; together they widen the receptive
    field. All attributes are those of `CSC`.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from shift_jax import SC2
        >>> layer = SC2(features=16, expansion=2, dilation=2)
        >>> x = jnp.ones((1, 8, 8, 16))
        >>> y, variables = layer.init_with_output(jax.random.key(0), x)
        >>> y.shape
        (1, 8, 8, 16)
    """

    shift_first = True
