"""The shift as a layer, alone and with the pointwise convolution that follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from shift_jax import ops
from shift_jax.errors import InputError, positive_int
from shift_jax.layers.initializers import Initializer, he_init
from shift_jax.ops.channels import per_channel

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, Int, Shaped


def hashable(values) -> Any:
    """Returns offsets or weights as nested tuples, so that modules that have them can hash."""
    if isinstance(values, list | tuple | np.ndarray):
        return tuple(hashable(item) for item in values)
    return values.item() if isinstance(values, np.generic) else values


def _explicit_offsets(layer: Shift | ShiftConv, channels: int) -> Any:
    """Returns the argument `offsets` of `shift_jax.ops.shift` for that many channels."""
    if layer.direction_weights is None:
        return layer.offsets
    if layer.offsets is not None:
        raise InputError(
            "offsets and direction_weights are both given, and each alone decides where the "
            "channels look: leave one of them out."
        )
    if layer.order != "grouped":
        raise InputError(
            f"order is {layer.order!r}, but direction_weights keep the channels of one direction "
            "together: leave order out."
        )
    weights, dilation = layer.direction_weights, layer.dilation
    return ops.allocate_offsets(channels, layer.kernel_size, weights, dilation)


class Shift(nn.Module):
    """The shift operation (Section 2.1, Eq. 6) as a layer; it has no parameters.

    It takes and returns [..., H, W, C] of any dtype.

        >>> import jax.numpy as jnp
        >>> from shift_jax import Shift
        >>> layer = Shift(kernel_size=3, dilation=2)
        >>> layer.apply({}, jnp.ones((1, 8, 8, 18))).shape
        (1, 8, 8, 18)

    Attributes:
      kernel_size, dilation, order, offsets: see `shift_jax.shift`.
      direction_weights: k² numbers that divide the channels among the directions, see
        `shift_jax.ops.allocate_offsets`; None is the paper's uniform allocation.

    Raises:
      InputError: as `shift_jax.shift`, or attributes that contradict each other.
    """

    kernel_size: int = 3
    dilation: int = 1
    order: ops.Order = "grouped"
    offsets: Any = None
    direction_weights: Any = None

    def __post_init__(self):
        self.offsets = hashable(self.offsets)
        self.direction_weights = hashable(self.direction_weights)
        super().__post_init__()

    def __call__(self, x: Shaped[Array, "*b h w c"]) -> Shaped[Array, "*b h w c"]:
        offsets = _explicit_offsets(self, x.shape[-1])
        return ops.shift(x, self.kernel_size, self.dilation, self.order, offsets)


class ShiftConv(nn.Module):
    """A shift and the pointwise convolution that follows it (Section 2.1).

    It takes [..., H, W, C] and returns [..., ⌈H/s⌉, ⌈W/s⌉, N]. `kernel_size=1` is the pointwise
    convolution alone.

        >>> import jax
        >>> import jax.numpy as jnp
        >>> from shift_jax import ShiftConv
        >>> layer = ShiftConv(features=32, kernel_size=5, stride=2)
        >>> x = jnp.ones((1, 8, 8, 64))
        >>> variables = layer.init(jax.random.key(0), x)
        >>> variables["params"]["kernel"].shape
        (64, 32)
        >>> layer.apply(variables, x).shape
        (1, 4, 4, 32)

    Attributes:
      features: output channels N.
      kernel_size, dilation, order, offsets, direction_weights: the shift, see `Shift`.
      stride: s of the pointwise convolution; it keeps rows and columns 0, s, 2s, …
      use_bias: whether to add a learned bias.
      implementation: see `shift_jax.shift_conv`.
      dtype: of the computation; None is the common dtype of input and parameters.
      param_dtype: of the parameters "kernel" (C, N) and "bias" (N,).
      kernel_init, bias_init: initializers of the two parameters.

    Raises:
      InputError: as `shift_jax.shift_conv`, or attributes that contradict each other.
    """

    features: int
    kernel_size: int = 3
    dilation: int = 1
    stride: int = 1
    order: ops.Order = "grouped"
    offsets: Any = None
    direction_weights: Any = None
    use_bias: bool = False
    implementation: ops.Implementation | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = he_init
    bias_init: Initializer = nn.initializers.zeros_init()

    def __post_init__(self):
        self.offsets = hashable(self.offsets)
        self.direction_weights = hashable(self.direction_weights)
        super().__post_init__()

    @nn.nowrap
    def channel_offsets(self, channels: int) -> Int[np.ndarray, "c 2"]:
        """Returns int32 (C, 2): the (dy, dx) in pixels at which each channel looks."""
        explicit = _explicit_offsets(self, channels)
        if explicit is None:
            return ops.shift_offsets(channels, self.kernel_size, self.dilation, self.order)
        return np.asarray(explicit, np.int32)

    @nn.compact
    def folded(
        self,
        in_features: int,
        out_scale: Float[Array, " n"] | None = None,
        bias: Float[Array, " n"] | None = None,
    ) -> tuple[Float[Array, "c n"], Float[Array, " n"] | None]:
        """Returns the kernel (C, N) and the bias (N,) or None, with a following y·a + b folded in.

        Args:
          in_features: C.
          out_scale: a (N,), such as the scale of a following BatchNorm.
          bias: b (N,), such as the bias of that BatchNorm.
        """
        features = positive_int("features", self.features)
        kernel = self.param("kernel", self.kernel_init, (in_features, features), self.param_dtype)
        own_bias = None
        if self.use_bias:
            own_bias = self.param("bias", self.bias_init, (features,), self.param_dtype)
        if out_scale is not None:
            kernel = kernel * per_channel(out_scale, kernel)
            own_bias = None if own_bias is None else own_bias * out_scale
        if own_bias is None or bias is None:
            return kernel, bias if own_bias is None else own_bias
        return kernel, own_bias + bias

    def __call__(
        self,
        x: Float[Array, "*b h w c"],
        *,
        expand: Float[Array, "d c"] | None = None,
        prologue_scale: Float[Array, " c"] | None = None,
        prologue_bias: Float[Array, " c"] | None = None,
        prologue_relu: bool = False,
        out_scale: Float[Array, " n"] | None = None,
        bias: Float[Array, " n"] | None = None,
        residual: Float[Array, "*b h_out w_out n"] | None = None,
        relu: bool = False,
        relu_before_residual: bool = False,
        statistics: bool = False,
    ) -> Any:
        """Returns y [..., ⌈H/s⌉, ⌈W/s⌉, N], and with `statistics` its sums.

        Args:
          x: [..., H, W, C], or [..., H, W, D] with `expand`.
          out_scale, bias: see `folded`; all others: see `shift_jax.shift_conv`.
        """
        channels = x.shape[-1] if expand is None else expand.shape[-1]
        kernel, bias = self.folded(channels, out_scale, bias)
        dtype = jnp.result_type(x, self.param_dtype) if self.dtype is None else self.dtype
        return ops.shift_conv(
            x.astype(dtype),
            kernel.astype(dtype),
            bias,
            expand=None if expand is None else expand.astype(dtype),
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            stride=self.stride,
            order=self.order,
            offsets=_explicit_offsets(self, channels),
            prologue_scale=prologue_scale,
            prologue_bias=prologue_bias,
            prologue_relu=prologue_relu,
            residual=residual,
            relu=relu,
            relu_before_residual=relu_before_residual,
            statistics=statistics,
            implementation=self.implementation,
        )
