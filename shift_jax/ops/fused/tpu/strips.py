"""What the TPU kernels leave to XLA: images too wide for the chip, and sizes the stride splits.

A too wide image is cut into strips of columns with a halo, each of which is an image to the
kernels. Wide means more than 150 to 240 columns of 256 bfloat16 channels, by the kernel size and
the operation. Their statistics are those of the rounded y.
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp

from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.xla import pointwise, sums_of


def prologue_outside(x, scale, offset, spec: Spec, expand=None):
    """Applies the prologue; returns the new x, scale, offset and spec.

    In kernels the pixels that fill up an image to a multiple of the stride would become `offset`.
    """
    x = x if expand is None else pointwise(x, expand, x.dtype)
    wide = _before_relu(x, scale, offset)
    wide = jnp.maximum(wide, 0) if spec.prologue_relu else wide
    return wide.astype(x.dtype), None, None, replace(spec, prologue_relu=False)


def prologue_gradient_outside(call, dy, w, x, scale, offset, spec: Spec, size):
    """`input_gradient` with the prologue's part of it in XLA."""
    bare = replace(spec, prologue_relu=False)
    gradient, _, _ = call(dy, w, None, None, None, spec=bare, size=size)
    gradient = gradient.astype(jnp.float32)
    if spec.prologue_relu:
        gradient = jnp.where(_before_relu(x, scale, offset) > 0, gradient, 0.0)
    dx = gradient if scale is None else gradient * scale
    return (
        dx.astype(dy.dtype),
        None if scale is None else (gradient * x).sum((0, 1, 2)),
        None if offset is None else gradient.sum((0, 1, 2)),
    )


def forward(call, x, w, bias, scale, offset, residual, expand, spec: Spec):
    """`forward` in two halves, with the statistics in XLA."""
    bare = replace(spec, statistics=False)
    parts = []
    for strip in _halves(x.shape[2], spec):
        part = residual if residual is None else residual[:, :, strip.read_out]
        y, _ = call(x[:, :, strip.read], w, bias, scale, offset, part, expand, spec=bare)
        parts.append(y[:, :, strip.keep_out])
    y = jnp.concatenate(parts, axis=2)
    if not spec.statistics:
        return y, None
    return y, sums_of(y)


def input_gradient(call, dy, w, x, scale, offset, spec: Spec, size):
    """`input_gradient` in two halves, with the prologue's part in XLA."""
    if x is not None:
        return prologue_gradient_outside(call, dy, w, x, scale, offset, spec, size)
    height, width = size
    parts = []
    for strip in _halves(width, spec):
        columns = strip.read.stop - strip.read.start
        dx, _, _ = call(
            dy[:, :, strip.read_out], w, None, None, None, spec=spec, size=(height, columns)
        )
        parts.append(dx[:, :, strip.keep])
    return jnp.concatenate(parts, axis=2), None, None


def weight_gradient(call, x, dy, scale, offset, spec: Spec):
    """`weight_gradient` as the sum of two halves."""
    total = 0.0
    for strip in _halves(x.shape[2], spec):
        part = dy[:, :, strip.read_out]
        kept = range(*strip.keep_out.indices(part.shape[2]))
        column = jnp.arange(part.shape[2])[:, None]
        part = jnp.where((column >= kept.start) & (column < kept.stop), part, 0)
        total += call(x[:, :, strip.read], part, scale, offset, spec=spec)
    return total


def halved(width: int, spec: Spec) -> int:
    """How many columns the wider half of an image is read with."""
    return max(strip.read.stop - strip.read.start for strip in _halves(width, spec))


class _Strip:
    """Columns start:stop of the wide side, multiples of the stride, and the halo around them.

    Attributes:
      read, read_out: with the halo, on the wide and on the strided side.
      keep, keep_out: the strip itself, inside of what is read.
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


def _before_relu(x, scale, offset):
    wide = x.astype(jnp.float32)
    wide = wide if scale is None else wide * scale
    return wide if offset is None else wide + offset
