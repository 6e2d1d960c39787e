"""`shift_conv` in plain XLA operations: the definition of correct, and what runs elsewhere.

The three functions are those of every implementation; `call` has checked their arguments. Shapes:
x [B, H, W, C], w (C, N), dy and residual [B, ceil(H/s), ceil(W/s), N], bias (N,), scale and offset
(C,); w, dy and residual have the dtype of x, and bias, scale and offset are float32 or wider.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.shift import shift_by

if TYPE_CHECKING:
    from jax import Array


def forward(
    x: Array,
    w: Array,
    bias: Array | None,
    scale: Array | None,
    offset: Array | None,
    residual: Array | None,
    expand: Array | None = None,
    *,
    spec: Spec,
) -> tuple[Array, Array | None]:
    """Returns y in the dtype of x, and the sums [2, N] in float32 or wider if they are wanted.

    With `expand` (D, C), x is [B, H, W, D] and its product with it is what the rest is about.
    Differentiable in both modes, to any order.
    """
    x = x if expand is None else pointwise(x, expand, x.dtype)
    wide = _at_least_float32(x)
    has_epilogue = bias is not None or residual is not None
    # Only an epilogue needs the float32 accumulator itself. Without one the product is rounded
    # once on the way out, and its gradient's products keep 16-bit operands.
    y = pointwise(_shifted(x, scale, offset, spec), w, wide if has_epilogue else x.dtype)
    y = y if bias is None else y + bias
    y = jax.nn.relu(y) if spec.relu == "before_residual" else y
    y = y if residual is None else y + residual
    y = jax.nn.relu(y) if spec.relu == "last" else y
    y = y.astype(x.dtype)
    return y, sums_of(y) if spec.statistics else None


def sums_of(y: Array) -> Array:
    """The sum and the sum of squares [2, N] of [B, Ho, Wo, N], in float32 or wider.

    Of the rounded array: XLA sums that in passing, and would write an unrounded one to memory.
    """
    y = y.astype(_at_least_float32(y))
    return jnp.stack([jnp.sum(y, axis=(0, 1, 2)), jnp.sum(jnp.square(y), axis=(0, 1, 2))])


def input_gradient(
    dy: Array,
    w: Array,
    x: Array | None,
    scale: Array | None,
    offset: Array | None,
    *,
    spec: Spec,
    size: tuple[int, int],
) -> tuple[Array, Array | None, Array | None]:
    """Returns dx [B, *size, C], dscale and doffset from the cotangent of the product.

    x is given where there is a prologue, else None.
    """
    dx = pointwise(dy, w.T, w.dtype)
    if spec.stride > 1:
        gaps = [
            (0, length - 1 - spec.stride * (kept - 1), spec.stride - 1)
            for length, kept in zip(size, dy.shape[1:3], strict=True)
        ]
        dx = lax.pad(dx, jnp.zeros((), dx.dtype), [(0, 0, 0), *gaps, (0, 0, 0)])
    dx = shift_by(dx, tuple((-dy, -dx) for dy, dx in spec.offsets))
    if x is None:
        return dx, None, None
    masked, wide_x = dx.astype(_at_least_float32(dx)), x.astype(_at_least_float32(x))
    if spec.prologue_relu:
        masked = jnp.where(_affine(wide_x, scale, offset) > 0, masked, 0)
    dx = masked if scale is None else masked * scale
    dscale = None if scale is None else jnp.sum(masked * wide_x, axis=(0, 1, 2))
    doffset = None if offset is None else jnp.sum(masked, axis=(0, 1, 2))
    return dx.astype(x.dtype), dscale, doffset


def weight_gradient(
    x: Array, dy: Array, scale: Array | None, offset: Array | None, *, spec: Spec
) -> Array:
    """Returns dw [C, N] in float32 or wider from x and the cotangent of the product."""
    return lax.platform_dependent(
        _shifted(x, scale, offset, spec), dy, cpu=_product_per_image, default=_product
    )


def pointwise(a: Array, w: Array, dtype) -> Array:
    """The product [B, H, W, C] (C, N) in `dtype`."""

    def product(a: Array) -> Array:
        contracting = ((a.ndim - 1,), (0,))
        return lax.dot_general(a, w, (contracting, ((), ())), preferred_element_type=dtype)

    def of_pixels(a: Array) -> Array:
        batch, height, width, channels = a.shape
        pixels = a.transpose(1, 2, 0, 3).reshape(height * width * batch, channels)
        y = product(pixels).reshape(height, width, batch, w.shape[1])
        return y.transpose(2, 0, 1, 3)

    # A TPU's convolutions and our kernels have the batch next to the channels in memory, where
    # this order of the rows is no copy; for the other one XLA makes two.
    return lax.platform_dependent(a, tpu=of_pixels, default=product)


def _product(a: Array, dy: Array) -> Array:
    contracting = tuple(range(a.ndim - 1))
    return lax.dot_general(
        a, dy, ((contracting, contracting), ((), ())), preferred_element_type=_at_least_float32(a)
    )


def _product_per_image(a: Array, dy: Array) -> Array:
    """The same: XLA's CPU products transpose a whole operand to contract its first axes."""
    products = lax.dot_general(
        a, dy, (((1, 2), (1, 2)), ((0,), (0,))), preferred_element_type=_at_least_float32(a)
    )
    return products.sum(axis=0)


def _shifted(x: Array, scale: Array | None, offset: Array | None, spec: Spec) -> Array:
    """The product's operand [B, Ho, Wo, C]: x after the prologue, the shift and the stride."""
    if scale is not None or offset is not None:
        # In float32 as the BatchNorm it stands for; XLA fuses the casts away.
        x = _affine(x.astype(_at_least_float32(x)), scale, offset).astype(x.dtype)
    if spec.prologue_relu:
        x = jax.nn.relu(x)
    x = shift_by(x, spec.offsets)
    return x[:, :: spec.stride, :: spec.stride] if spec.stride > 1 else x


def _affine(x: Array, scale: Array | None, offset: Array | None) -> Array:
    x = x if scale is None else x * scale
    return x if offset is None else x + offset


def _at_least_float32(x: Array):
    return jnp.promote_types(x.dtype, jnp.float32)
