"""What the TPU kernels leave to XLA: images too wide for the chip, and sizes off the stride.

An image that is too wide is cut into strips of columns with a halo; to the kernels each strip is an
image. Too wide means more than 150 to 240 columns of 256 bfloat16 channels, depending on the kernel
size and the operation. The statistics of strips are those of the rounded y.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import jax.numpy as jnp

from shift_jax.ops.channels import per_channel
from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.xla import pointwise, sums_of


def prologue_outside(operands: Operands, spec: Spec) -> tuple[Operands, Spec]:
    """Applies the expansion and the prologue, and returns what is left to do.

    Inside a kernel, the pixels that pad an image to a multiple of the stride would become
    `prologue_bias` instead of zero.
    """
    x, expand = operands.x, operands.expand
    x = x if expand is None else pointwise(x, expand, x.dtype)
    wide = _before_relu(x, operands)
    wide = jnp.maximum(wide, 0) if spec.prologue_relu else wide
    rest = replace(
        operands, x=wide.astype(x.dtype), expand=None, prologue_scale=None, prologue_bias=None
    )
    return rest, replace(spec, prologue_relu=False)


def prologue_gradient_outside(call, operands: Operands, spec: Spec, size: tuple[int, int]):
    """Does `input_gradient` with the prologue's part of it in XLA."""
    x, dy = operands.x, operands.dy
    scale, bias = operands.prologue_scale, operands.prologue_bias
    bare = replace(spec, prologue_relu=False)
    gradient, _, _ = call(Operands(w=operands.w, dy=dy), spec=bare, size=size)
    gradient = gradient.astype(jnp.float32)
    if spec.prologue_relu:
        gradient = jnp.where(_before_relu(x, operands) > 0, gradient, 0.0)
    dx = gradient if scale is None else gradient * per_channel(scale, gradient)
    return (
        dx.astype(dy.dtype),
        None if scale is None else (gradient * x).sum((0, 1, 2)),
        None if bias is None else gradient.sum((0, 1, 2)),
    )


def forward(call, operands: Operands, spec: Spec):
    """Does `forward` in two halves, with the statistics in XLA."""
    x, residual = operands.x, operands.residual
    bare = replace(spec, statistics=False)
    parts = []
    for strip in _halves(x.shape[2], spec):
        part = residual if residual is None else residual[:, :, strip.read_out]
        y, _ = call(replace(operands, x=x[:, :, strip.read], residual=part), spec=bare)
        parts.append(y[:, :, strip.keep_out])
    y = jnp.concatenate(parts, axis=2)
    if not spec.statistics:
        return y, None
    return y, sums_of(y)


def input_gradient(call, operands: Operands, spec: Spec, size: tuple[int, int]):
    """Does `input_gradient` in two halves, with the prologue's part in XLA."""
    if operands.x is not None:
        return prologue_gradient_outside(call, operands, spec, size)
    height, width = size
    parts = []
    for strip in _halves(width, spec):
        columns = strip.read.stop - strip.read.start
        half = Operands(w=operands.w, dy=operands.dy[:, :, strip.read_out])
        dx, _, _ = call(half, spec=spec, size=(height, columns))
        parts.append(dx[:, :, strip.keep])
    return jnp.concatenate(parts, axis=2), None, None


def weight_gradient(call, operands: Operands, spec: Spec) -> Any:
    """Does `weight_gradient` as the sum of two halves."""
    x, dy = operands.x, operands.dy
    total = 0.0
    for strip in _halves(x.shape[2], spec):
        part = dy[:, :, strip.read_out]
        kept = range(*strip.keep_out.indices(part.shape[2]))
        column = jnp.arange(part.shape[2])[None, None, :, None]
        part = jnp.where((column >= kept.start) & (column < kept.stop), part, 0)
        total += call(replace(operands, x=x[:, :, strip.read], dy=part), spec=spec)
    return total


def halved(width: int, spec: Spec) -> int:
    """Returns how many columns the wider half of an image reads, its halo included."""
    return max(strip.read.stop - strip.read.start for strip in _halves(width, spec))


class _Strip:
    """Columns start:stop of the wide side, multiples of the stride, and the halo around them.

    Attributes:
      read, read_out: with the halo, on the wide and on the strided side.
      keep, keep_out: the strip itself, within what is read.
    """

    def __init__(self, start: int, stop: int, width: int, spec: Spec):
        stride = spec.stride
        inside = [abs(dx) for _, dx in spec.offsets if abs(dx) < width]
        halo = -(-max(inside, default=0) // stride) * stride
        first, last = max(start - halo, 0), min(stop + halo, width)
        self.read = slice(first, last)
        self.read_out = slice(first // stride, -(-last // stride))
        self.keep = slice(start - first, stop - first)
        self.keep_out = slice((start - first) // stride, -(-(stop - first) // stride))


def _halves(width: int, spec: Spec) -> tuple[_Strip, _Strip]:
    middle = -(-width // (2 * spec.stride)) * spec.stride
    return _Strip(0, middle, width, spec), _Strip(middle, width, width, spec)


def _before_relu(x, operands: Operands):
    wide = x.astype(jnp.float32)
    scale, bias = operands.prologue_scale, operands.prologue_bias
    wide = wide if scale is None else wide * per_channel(scale, wide)
    return wide if bias is None else wide + per_channel(bias, wide)
