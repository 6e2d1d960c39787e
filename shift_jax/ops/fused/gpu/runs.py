"""How the channels of an image are fetched: in runs of 16 that have one offset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from shift_jax.ops.fused.gpu.tiles import RUN

if TYPE_CHECKING:
    from jax import Array


def runs_of(offsets, x_shape) -> tuple[np.ndarray, np.ndarray]:
    """Runs of 16 channels in which each channel is once, with its own offset.

    Returns:
      [runs, 16], the channels, C for those that the run does not have.
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
    """The offsets [C, 2]; beyond the image is beyond it, however far."""
    return np.clip(np.asarray(offsets, np.int64), np.negative(x_shape[1:3]), x_shape[1:3])


def prologue_of(scale, offset, members: np.ndarray, tiles: int) -> Array | None:
    """[tiles, runs, 2, 16] of the scale and the offset of each channel of each run."""
    if scale is None and offset is None:
        return None
    scale = jnp.ones_like(offset) if scale is None else scale
    offset = jnp.zeros_like(scale) if offset is None else offset
    both = jnp.pad(jnp.stack([scale, offset]).astype(jnp.float32), ((0, 0), (0, 1)))
    return jnp.broadcast_to(both[:, members].swapaxes(0, 1), (tiles, len(members), 2, RUN))
