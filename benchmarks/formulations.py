"""Formulations of the shift in XLA operations: the library's and those that lost to them.

Each takes `x` [..., H, W, C] and a static (dy, dx) for each channel. Only the winners live in
`shift_jax/ops/shift.py`; `benchmarks/results/README.md` explains why they won.
"""

from __future__ import annotations

from functools import partial
from itertools import groupby
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from shift_jax.ops import shift_offsets
from shift_jax.ops.shift import _gather, _rows_then_columns


class Shape(NamedTuple):
    """One shift and pointwise convolution of a network."""

    network: str
    side: int
    channels: int
    features: int
    kernel_size: int

    def offsets(self, order):
        table = shift_offsets(self.channels, self.kernel_size, order=order)
        return tuple(map(tuple, table.tolist()))


SHAPES = (
    Shape("ShiftResNet20-3", 32, 48, 16, 3),
    Shape("ShiftResNet20-3", 16, 96, 32, 3),
    Shape("ShiftResNet20-3", 8, 192, 64, 3),
    Shape("ShiftNet-A", 56, 256, 64, 5),
    Shape("ShiftNet-A", 28, 384, 128, 5),
    Shape("ShiftNet-A", 14, 512, 256, 3),
    Shape("ShiftNet-A", 7, 512, 512, 3),
)


def runs(offsets):
    """Returns (offset, first channel, last + 1) of each run of channels with one offset."""
    found, start = [], 0
    for offset, members in groupby(offsets):
        stop = start + len(tuple(members))
        found.append((offset, start, stop))
        start = stop
    return found


def move(x, dy, dx):
    """Moves the whole tensor by one offset, filling with zeros."""
    height, width = x.shape[-3:-1]
    dy, dx = int(np.clip(dy, -height, height)), int(np.clip(dx, -width, width))
    padding = [(0, 0, 0)] * (x.ndim - 3) + [(-dy, dy, 0), (-dx, dx, 0), (0, 0, 0)]
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


def pad_once(x, offsets):
    """Returns `x` padded for all offsets, and a function that cuts the moved image out of it."""
    height, width = x.shape[-3:-1]
    ry, rx = np.abs(np.asarray(offsets)).max(axis=0)
    padded = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(ry, ry), (rx, rx), (0, 0)])

    def cut(dy, dx, channels=slice(None)):
        rows, columns = slice(ry + dy, ry + dy + height), slice(rx + dx, rx + dx + width)
        return padded[..., rows, columns, channels]

    return padded, cut


def slices_concatenated(x, offsets):
    return jnp.concatenate([move(x[..., a:b], *o) for o, a, b in runs(offsets)], -1)


def slices_of_padded_concatenated(x, offsets):
    _, cut = pad_once(x, offsets)
    return jnp.concatenate([cut(*o, slice(a, b)) for o, a, b in runs(offsets)], -1)


def _selects(x, offsets, moved):
    table, out = np.asarray(offsets), x
    for dy, dx in dict.fromkeys(offsets):
        if dy or dx:
            out = jnp.where((table == (dy, dx)).all(-1), moved(dy, dx), out)
    return out


def selects(x, offsets):
    return _selects(x, offsets, lambda dy, dx: move(x, dy, dx))


def selects_of_padded(x, offsets):
    return _selects(x, offsets, pad_once(x, offsets)[1])


def selects_of_rolled(x, offsets):
    height, width = x.shape[-3:-1]
    row, column = np.arange(height)[:, None, None], np.arange(width)[:, None]

    def moved(dy, dx):
        inside = (row + dy >= 0) & (row + dy < height) & (column + dx >= 0) & (column + dx < width)
        return jnp.where(inside, jnp.roll(x, (-dy, -dx), (-3, -2)), jnp.zeros((), x.dtype))

    return _selects(x, offsets, moved)


def advanced_index(x, offsets):
    height, width, channels = x.shape[-3:]
    table = np.asarray(offsets)
    padded, _ = pad_once(x, offsets)
    ry, rx = np.abs(table).max(axis=0)
    rows = np.arange(height)[:, None, None] + ry + table[:, 0]
    columns = np.arange(width)[:, None] + rx + table[:, 1]
    return padded[..., rows, columns, np.arange(channels)]


def updates(x, offsets):
    """Writes each run of channels into zeros."""
    height, width = x.shape[-3:-1]
    out = jnp.zeros_like(x)
    for (dy, dx), a, b in runs(offsets):
        rows = slice(max(dy, 0), height + min(dy, 0))
        columns = slice(max(dx, 0), width + min(dx, 0))
        start = [0] * (x.ndim - 3) + [max(-dy, 0), max(-dx, 0), a]
        out = lax.dynamic_update_slice(out, x[..., rows, columns, a:b], start)
    return out


def depthwise_one_hot(x, offsets):
    """Not exact: 0 · NaN of a neighbor is NaN."""
    table, channels = np.asarray(offsets), x.shape[-1]
    ry, rx = np.abs(table).max(axis=0)
    kernel = np.zeros((2 * ry + 1, 2 * rx + 1, 1, channels), np.float32)
    kernel[ry + table[:, 0], rx + table[:, 1], 0, np.arange(channels)] = 1
    return convolution(x, jnp.asarray(kernel, x.dtype), groups=channels)


def convolution(x, kernel, groups=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def sum_of_directions(x, w, offsets):
    """Computes shift and pointwise convolution as one small product for each direction."""
    return sum(move(x[..., a:b], *o) @ w[a:b] for o, a, b in runs(offsets))


def dense_scattered(x, w, offsets):
    """Computes both as one k×k convolution, mostly of zeros. Not exact."""
    table = np.asarray(offsets)
    ry, rx = np.abs(table).max(axis=0)
    kernel = jnp.zeros((2 * ry + 1, 2 * rx + 1, *w.shape), w.dtype)
    kernel = kernel.at[ry + table[:, 0], rx + table[:, 1], np.arange(len(table))].set(w)
    return convolution(x, kernel)


SHIFTS = {
    "gather": partial(_gather, block=1, over_batch=True),
    "gather_blocks": partial(_gather, block=4, over_batch=True),
    "gather_per_image": partial(_gather, block=1, over_batch=False),
    "rows_then_columns": _rows_then_columns,
    "selects": selects,
    "selects_of_padded": selects_of_padded,
    "selects_of_rolled": selects_of_rolled,
    "slices_concatenated": slices_concatenated,
    "slices_of_padded_concatenated": slices_of_padded_concatenated,
    "advanced_index": advanced_index,
    "updates": updates,
    "depthwise_one_hot": depthwise_one_hot,
}

FUSED = {"sum_of_directions": sum_of_directions, "dense_scattered": dense_scattered}


def with_adjoint(formulation):
    """Returns the formulation with its adjoint, the same with negated offsets, as derivative."""

    def shifted(x, offsets):
        back = tuple((-dy, -dx) for dy, dx in offsets)
        function = jax.custom_vjp(lambda x: formulation(x, offsets))
        function.defvjp(
            lambda x: (formulation(x, offsets), None), lambda _, g: (formulation(g, back),)
        )
        return function(x)

    return shifted


def candidates(offsets, training):
    """Returns {name: f(x, w)} of shift + pointwise convolution, with either derivative."""
    found = {}
    for name, formulation in SHIFTS.items():
        versions = {name: formulation}
        if training:
            versions = {
                f"{name}, natural": formulation,
                f"{name}, adjoint": with_adjoint(formulation),
            }
        for label, f in versions.items():
            found[label] = lambda x, w, f=f: f(x, offsets) @ w
    for name, f in FUSED.items():
        found[name] = lambda x, w, f=f: f(x, w, offsets)
    return found


def training_step(function):
    """Returns (g, *args) -> f(*args) and the gradients of all arguments for the cotangent g."""

    def step(g, *args):
        y, pull_back = jax.vjp(function, *args)
        return y, pull_back(g)

    return step
