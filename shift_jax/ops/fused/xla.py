"""`shift_conv` in plain XLA operations: the definition of correct."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import lax

from shift_jax.ops.offsets import Offsets
from shift_jax.ops.shift import shift_by

if TYPE_CHECKING:
    from jax import Array


def shift_conv_xla(
    x: Array,
    w: Array,
    bias: Array | None,
    *,
    offsets: Offsets,
    stride: int,
    scale: Array | None,
    offset: Array | None,
    prologue_relu: bool,
    residual: Array | None,
    relu: bool,
) -> Array:
    """See `shift_jax.ops.shift_conv`, which has checked the arguments."""
    dtype = jnp.result_type(x, w)
    if scale is not None or offset is not None:
        # In float32 as the BatchNorm it stands for; XLA fuses the casts away.
        wide = x.astype(jnp.promote_types(dtype, jnp.float32))
        wide = wide if scale is None else wide * scale
        wide = wide if offset is None else wide + offset
        x = wide.astype(dtype)
    if prologue_relu:
        x = jnp.maximum(x, 0)
    x = shift_by(x, offsets)
    if stride > 1:
        x = x[..., ::stride, ::stride, :]
    has_epilogue = bias is not None or residual is not None
    # Only an epilogue needs the float32 accumulator itself. Without one the product is rounded
    # once on the way out, and its gradient's products keep 16-bit operands.
    accumulator = jnp.promote_types(dtype, jnp.float32) if has_epilogue else dtype
    y = lax.dot_general(
        x.astype(dtype),
        w.astype(dtype),
        (((x.ndim - 1,), (0,)), ((), ())),
        preferred_element_type=accumulator,
    )
    y = y if bias is None else y + bias
    y = y if residual is None else y + residual
    y = jnp.maximum(y, 0) if relu else y
    return y.astype(dtype)
