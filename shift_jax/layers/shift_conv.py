"""The shift and the shift with its pointwise convolution as layers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from shift_jax import ops
from shift_jax.errors import InputError, positive_int
from shift_jax.layers.initializers import Initializer, he_init

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, Int, Shaped


def hashable(values) -> Any:
    """Offsets or weights as nested tuples, so that modules with explicit ones compare and hash."""
    if isinstance(values, list | tuple | np.ndarray):
        return tuple(hashable(item) for item in values)
    return values.item() if isinstance(values, np.generic) else values


def _explicit_offsets(layer: Shift | ShiftConv, channels: int) -> Any:
    """What `shift_jax.ops.shift` takes as `offsets` of so many channels."""
    if layer.direction_weights is None:
        return layer.offsets
    if layer.offsets is not None:
        raise InputError(
            "offsets and direction_weights are both given, and either says where each channel "
            "looks: leave one of them out."
        )
    if layer.order != "grouped":
        raise InputError(
            f"order is {layer.order!r}, but direction_weights put the channels of one direction "
            "side by side: leave order out."
        )
    weights, dilation = layer.direction_weights, layer.dilation
    return ops.allocate_offsets(channels, layer.kernel_size, weights, dilation)


class Shift(nn.Module):
    """The shift operation as a layer without parameters.

    Attributes:
      kernel_size, dilation, order, offsets: see `shift_jax.ops.shift`.
      direction_weights: k² numbers, in proportion to which the directions get channels, see
        `shift_jax.ops.allocate_offsets`; None is the paper's uniform allocation.
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
    """Shift followed by a pointwise convolution; `kernel_size=1` is the convolution alone.

    Attributes:
      features: output channels N.
      kernel_size, dilation, order, offsets, direction_weights: the shift, see `Shift`.
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
        """Returns int32 (C, 2): the (dy, dx) in pixels by which each channel is looked up."""
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
        """Returns the kernel (C, N) and bias (N,) with what follows the convolution folded in.

        Args:
          in_features: C.
          out_scale: multiplies the convolution with its bias: a following BatchNorm's scale.
          bias: added to that, such as the BatchNorm's offset.
        """
        features = positive_int("features", self.features)
        kernel = self.param("kernel", self.kernel_init, (in_features, features), self.param_dtype)
        own_bias = None
        if self.use_bias:
            own_bias = self.param("bias", self.bias_init, (features,), self.param_dtype)
        if out_scale is not None:
            kernel = kernel * out_scale
            own_bias = None if own_bias is None else own_bias * out_scale
        biases = [value for value in (own_bias, bias) if value is not None]
        return kernel, sum(biases) if biases else None

    def __call__(
        self,
        x: Float[Array, "*b h w c"],
        *,
        expand: Float[Array, "d c"] | None = None,
        scale: Float[Array, " c"] | None = None,
        offset: Float[Array, " c"] | None = None,
        prologue_relu: bool = False,
        out_scale: Float[Array, " n"] | None = None,
        bias: Float[Array, " n"] | None = None,
        residual: Float[Array, "*b h_out w_out n"] | None = None,
        relu: bool = False,
        relu_before_residual: bool = False,
        statistics: bool = False,
    ):
        """Returns [..., H, W, N], with `statistics` the sums too, as `shift_jax.ops.shift_conv`.

        Args:
          x: [..., H, W, C].
          expand, scale, offset, prologue_relu, residual, relu, relu_before_residual, statistics:
            see `shift_jax.ops.shift_conv`.
          out_scale, bias: see `folded`.
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
            scale=scale,
            offset=offset,
            prologue_relu=prologue_relu,
            residual=residual,
            relu=relu,
            relu_before_residual=relu_before_residual,
            statistics=statistics,
            implementation=self.implementation,
        )
