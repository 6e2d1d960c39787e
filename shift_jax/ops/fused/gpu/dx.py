"""The gradient of the input on a GPU."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from shift_jax.ops.fused.gpu.limits import check
from shift_jax.ops.fused.gpu.product import product
from shift_jax.ops.fused.gpu.runs import clipped
from shift_jax.ops.fused.gpu.tiles import ROWS, RUN, widths
from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Spec


def input_gradient(operands: Operands, *, spec: Spec, size: tuple[int, int], interpret: Any = None):
    """Returns dx, dscale and dbias, see `shift_jax.ops.fused.xla.input_gradient`."""
    x, w, dy = operands.x, operands.w, operands.dy
    scale, bias = operands.prologue_scale, operands.prologue_bias
    channels, features = w.shape
    shape = (len(dy), *size, channels)
    check(shape, dy.dtype, features, spec)
    # A tile of channels fetches dy once for each of its offsets, and multiplies it by the channels
    # of w that have this offset: narrow tiles have fewer offsets, wide ones share their fetches.
    offsets = clipped(spec.offsets, shape)
    plans = [_plan_input_gradient(offsets, features, width) for width in widths(channels)]
    owned, starts = min(plans, key=lambda plan: plan[0].size + plan[0][..., 0].size * ROWS)
    tiles, _, width = owned.shape
    w = jnp.pad(w.T, ((0, -features % RUN), (0, -channels % width)))
    w = w.reshape(1, 1, -1, RUN, tiles, width).transpose(4, 1, 2, 3, 0, 5)
    blocks = jnp.where(owned[:, :, None, None, None], w, 0).reshape(tiles, -1, RUN, width)

    def epilogue(g, vectors, x):
        if x is None:
            return g, None
        if spec.prologue_relu:
            g = jnp.where(x * vectors[0] + vectors[1] > 0, g, 0.0)
        return g * vectors[0], (g * x, g)

    affine = [
        jnp.ones(channels) if scale is None else scale,
        jnp.zeros(channels) if bias is None else bias,
    ]
    dx, sums = product(
        dy,
        starts,
        blocks,
        epilogue,
        vectors=[] if x is None else affine,
        other=x,
        statistics=x is not None,
        interpret=interpret,
    )
    return (
        dx[..., :channels],
        None if scale is None or sums is None else sums[0, :channels],
        None if bias is None or sums is None else sums[1, :channels],
    )


def _plan_input_gradient(offsets: np.ndarray, features: int, width: int):
    """Finds the offsets of each tile of `width` channels.

    Returns:
      [tiles, offsets, width], whether the channel has the offset.
      [tiles, runs, 3], the dy, dx and first feature of each run: all features for each offset.
    """
    tiles = np.split(offsets, range(width, len(offsets), width))
    found = [np.unique(tile, axis=0) for tile in tiles]
    runs = -(-features // RUN)
    owned = np.zeros((len(tiles), max(map(len, found)), width), bool)
    # An empty run, unless set below: it begins after the last feature.
    starts = np.full((*owned.shape[:2], runs, 3), [0, 0, features])
    for i, (tile, mine) in enumerate(zip(tiles, found, strict=True)):
        owned[i, : len(mine), : len(tile)] = (mine[:, None] == tile).all(-1)
        starts[i, : len(mine), :, :2] = -mine[:, None]
        starts[i, : len(mine), :, 2] = RUN * np.arange(runs)
    return owned, starts.reshape(len(tiles), -1, 3)
