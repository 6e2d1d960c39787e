"""The public `shift_conv`: checks its arguments once, then calls the chosen implementation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp

from shift_jax.errors import InputError, did_you_mean, positive_int
from shift_jax.ops.fused.xla import shift_conv_xla
from shift_jax.ops.offsets import Order, resolve_offsets

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

Implementation = Literal["xla"]

_IMPLEMENTATIONS = {"xla": shift_conv_xla}


def shift_conv(
    x: Float[Array, "*batch h w c"],
    w: Float[Array, "c n"],
    bias: Float[Array, " n"] | None = None,
    *,
    kernel_size: int = 3,
    dilation: int = 1,
    stride: int = 1,
    order: Order = "grouped",
    offsets=None,
    scale: Float[Array, " c"] | None = None,
    offset: Float[Array, " c"] | None = None,
    prologue_relu: bool = False,
    residual: Float[Array, "*batch h_out w_out n"] | None = None,
    relu: bool = False,
    implementation: Implementation | None = None,
) -> Float[Array, "*batch h_out w_out n"]:
    """Shift followed by a pointwise convolution: "directly fetches data from the shifted
    address" (Section 2.1), with what surrounds it in a network.

    In order: the prologue `x * scale + offset` and ReLU, the shift with zero fill AFTER the
    prologue (a pixel from outside is 0, not `offset`), the product with `w`, and the epilogue
    `+ bias`, `+ residual`, ReLU. Products accumulate in float32 or wider.

    Args:
      x: [..., H, W, C].
      w: pointwise kernel (C, N).
      bias: (N,).
      kernel_size, dilation, order, offsets: the shift, as in `shift`; `kernel_size=1` is a
        plain pointwise convolution.
      stride: keeps the output's rows and columns 0, s, 2s, …
      scale: (C,), multiplies x first: with `offset` the preceding BatchNorm.
      offset: (C,), added before the shift.
      prologue_relu: ReLU before the shift.
      residual: [..., ceil(H/s), ceil(W/s), N], added before the last ReLU.
      relu: ReLU at the end.
      implementation: "xla", or None for the fastest on the platform lowered for.

    Returns:
      [..., ceil(H/s), ceil(W/s), N] in the common dtype of `x` and `w`.

    Raises:
      InputError: shapes that do not fit, an invalid shift, stride or implementation.
    """
    x, w = jnp.asarray(x), jnp.asarray(w)
    stride = positive_int("stride", stride)
    if x.ndim < 3:
        raise InputError(f"x has shape {x.shape}, expected [..., height, width, channels].")
    channels = x.shape[-1]
    if w.ndim != 2 or w.shape[0] != channels:
        raise InputError(
            f"w has shape {w.shape}, expected ({channels}, features) for x of shape {x.shape}."
        )
    features = w.shape[1]
    out_shape = (*x.shape[:-3], -(-x.shape[-3] // stride), -(-x.shape[-2] // stride), features)
    for name, value, expected in (
        ("scale", scale, (channels,)),
        ("offset", offset, (channels,)),
        ("bias", bias, (features,)),
        ("residual", residual, out_shape),
    ):
        if value is not None and jnp.shape(value) != expected:
            raise InputError(f"{name} has shape {jnp.shape(value)}, expected {expected}.")
    if implementation not in (None, *_IMPLEMENTATIONS):
        raise InputError(
            f"implementation is {implementation!r}, expected None or one of "
            f"{sorted(_IMPLEMENTATIONS)}.{did_you_mean(implementation, _IMPLEMENTATIONS)}"
        )
    return _IMPLEMENTATIONS[implementation or "xla"](
        x,
        w,
        bias,
        offsets=resolve_offsets(channels, kernel_size, dilation, order, offsets),
        stride=stride,
        scale=scale,
        offset=offset,
        prologue_relu=prologue_relu,
        residual=residual,
        relu=relu,
    )
