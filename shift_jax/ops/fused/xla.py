"""`shift_conv` in plain XLA operations: the definition of correct, and the default backend.

Every backend has these three functions with these signatures; kernels take options of their device
as well. `call` has checked the operands, whose shapes and dtypes `Operands` lists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jax import lax

from shift_jax.ops.channels import per_channel
from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.shift import shift_by

if TYPE_CHECKING:
    from jax import Array


def forward(operands: Operands, *, spec: Spec) -> tuple[Array, Array | None]:
    """Returns y in the dtype of x, and its sums (2, N) in float32 or wider or None.

    It is differentiable in both modes, to any order.

    Args:
      operands: all but `dy`.
      spec: the static half; `statistics` asks for the sums.
    """
    x, bias, residual = operands.x, operands.bias, operands.residual
    x = x if operands.expand is None else pointwise(x, operands.expand, x.dtype)
    wide = _at_least_float32(x)
    has_epilogue = bias is not None or residual is not None
    # Only an epilogue needs the float32 accumulator itself. Without one the product is rounded
    # once on the way out, and its gradient's products keep 16-bit operands.
    shifted = _shifted(x, operands, spec)
    y = pointwise(shifted, operands.w, wide if has_epilogue else x.dtype)
    y = y if bias is None else y + per_channel(bias, y)
    y = jax.nn.relu(y) if spec.relu == "before_residual" else y
    y = y if residual is None else y + residual
    y = jax.nn.relu(y) if spec.relu == "last" else y
    y = y.astype(x.dtype)
    return y, sums_of(y) if spec.statistics else None


def sums_of(y: Array) -> Array:
    """Returns the sum and the sum of squares (2, N) of [B, Ho, Wo, N], in float32 or wider.

    The array is the rounded one: XLA sums it in passing, and would write an unrounded one to
    memory.
    """
    y = y.astype(_at_least_float32(y))
    return jnp.stack([jnp.sum(y, axis=(0, 1, 2)), jnp.sum(jnp.square(y), axis=(0, 1, 2))])


def input_gradient(
    operands: Operands, *, spec: Spec, size: tuple[int, int]
) -> tuple[Array, Array | None, Array | None]:
    """Returns dx [B, H, W, C] and the gradients (C,) of the prologue's scale and bias or None.

    Args:
      operands: `dy`, `w` and, where there is a prologue, `x` and its vectors.
      spec: the static half.
      size: (H, W).
    """
    x, w, dy = operands.x, operands.w, operands.dy
    scale, bias = operands.prologue_scale, operands.prologue_bias
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
        masked = jnp.where(_affine(wide_x, operands) > 0, masked, 0)
    dx = masked if scale is None else masked * per_channel(scale, masked)
    dscale = None if scale is None else jnp.sum(masked * wide_x, axis=(0, 1, 2))
    dbias = None if bias is None else jnp.sum(masked, axis=(0, 1, 2))
    return dx.astype(x.dtype), dscale, dbias


def weight_gradient(operands: Operands, *, spec: Spec) -> Array:
    """Returns dw (C, N) in float32 or wider.

    Args:
      operands: `x`, `dy` and the prologue's vectors.
      spec: the static half.
    """
    return lax.platform_dependent(
        _shifted(operands.x, operands, spec),
        operands.dy,
        cpu=_product_per_image,
        default=_product,
    )


def pointwise(a: Array, w: Array, dtype) -> Array:
    """Returns the product of [B, H, W, C] and (C, N) in `dtype`."""

    def product(a: Array) -> Array:
        contracting = ((a.ndim - 1,), (0,))
        return lax.dot_general(a, w, (contracting, ((), ())), preferred_element_type=dtype)

    def of_pixels(a: Array) -> Array:
        batch, height, width, channels = a.shape
        pixels = a.transpose(1, 2, 0, 3).reshape(height * width * batch, channels)
        y = product(pixels).reshape(height, width, batch, w.shape[1])
        return y.transpose(2, 0, 1, 3)

    # A TPU's convolutions and our kernels have the batch next to the channels in memory. With the
    # rows in that order nothing is copied; for the other order XLA makes two copies.
    return lax.platform_dependent(a, tpu=of_pixels, default=product)


def _product(a: Array, dy: Array) -> Array:
    contracting = tuple(range(a.ndim - 1))
    return lax.dot_general(
        a, dy, ((contracting, contracting), ((), ())), preferred_element_type=_at_least_float32(a)
    )


def _product_per_image(a: Array, dy: Array) -> Array:
    """`_product` image by image: on a CPU XLA would transpose a whole operand for it."""
    products = lax.dot_general(
        a, dy, (((1, 2), (1, 2)), ((0,), (0,))), preferred_element_type=_at_least_float32(a)
    )
    return products.sum(axis=0)


def _shifted(x: Array, operands: Operands, spec: Spec) -> Array:
    """The product's operand [B, Ho, Wo, C]: x after the prologue, the shift and the stride."""
    if operands.prologue_scale is not None or operands.prologue_bias is not None:
        # In float32 as the BatchNorm it stands for; XLA fuses the casts away.
        x = _affine(x.astype(_at_least_float32(x)), operands).astype(x.dtype)
    if spec.prologue_relu:
        x = jax.nn.relu(x)
    x = shift_by(x, spec.offsets)
    return x[:, :: spec.stride, :: spec.stride] if spec.stride > 1 else x


def _affine(x: Array, operands: Operands) -> Array:
    scale, bias = operands.prologue_scale, operands.prologue_bias
    x = x if scale is None else x * per_channel(scale, x)
    return x if bias is None else x + per_channel(bias, x)


def _at_least_float32(x: Array):
    return jnp.promote_types(x.dtype, jnp.float32)
