"""Runs of 16 channels with one offset, in which the GPU kernels fetch the channels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from shift_jax.ops.fused.gpu.tiles import RUN
from shift_jax.ops.fused.operands import Operands

if TYPE_CHECKING:
    from jax import Array


def runs_of(offsets, x_shape) -> tuple[np.ndarray, np.ndarray]:
    """Splits the channels into runs of 16; each channel is in one run, which has its offset.

    Returns:
      [runs, 16], the channels, C for those that the run does not own.
      [runs, 3], the dy, dx and first channel.
    """
    offsets = clipped(offsets, x_shape)
    channels = len(offsets)
    missing = np.ones(channels, bool)
    members, starts = [], []
    while missing.any():
        first = int(missing.argmax())
        window = np.arange(first, min(first + RUN, channels))
        window = window[missing[window] & (offsets[window] == offsets[first]).all(-1)]
        missing[window] = False
        members.append(np.full(RUN, channels))
        members[-1][window - first] = window
        starts.append((*offsets[first], first))
    return np.stack(members), np.asarray(starts)


def clipped(offsets, x_shape) -> np.ndarray:
    """Returns the offsets [C, 2], none longer than leads out of the image."""
    return np.clip(np.asarray(offsets, np.int64), np.negative(x_shape[1:3]), x_shape[1:3])


def prologue_of(operands: Operands, members: np.ndarray, tiles: int) -> Array | None:
    """Returns [tiles, runs, 2, 16], the scale and bias of each channel of each run, or None."""
    scale, bias = operands.prologue_scale, operands.prologue_bias
    if scale is None:
        if bias is None:
            return None
        scale = jnp.ones_like(bias)
    bias = jnp.zeros_like(scale) if bias is None else bias
    both = jnp.pad(jnp.stack([scale, bias]).astype(jnp.float32), ((0, 0), (0, 1)))
    return jnp.broadcast_to(both[:, members].swapaxes(0, 1), (tiles, len(members), 2, RUN))
