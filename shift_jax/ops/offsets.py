"""Where each channel looks: the (dy, dx) offsets of the shift operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from shift_jax.errors import InputError, did_you_mean, positive_int

if TYPE_CHECKING:
    from jaxtyping import Int

Order = Literal["grouped", "interleaved"]
Offsets = tuple[tuple[int, int], ...]

_ORDERS = ("grouped", "interleaved")


def shift_offsets(
    channels: int, kernel_size: int = 3, dilation: int = 1, order: Order = "grouped"
) -> Int[np.ndarray, "c 2"]:
    """Returns the offsets of the paper's uniform allocation (Section 2.2).

    Each of the k² directions gets `channels // k²` channels; the `channels % k²` channels
    left over are the last ones and stay where they are. With fewer than k² channels
    nothing moves.

    Args:
      channels: number of channels C.
      kernel_size: side k of the window the directions span; odd.
      dilation: distance in pixels between neighbouring directions.
      order: "grouped" (the paper): the channels of one direction are contiguous, directions
        in row-major order. "interleaved" (the authors' CUDA kernel): consecutive channels
        have consecutive directions. The two differ by a permutation of channels only, which
        pointwise convolutions on both sides absorb (Eq. 9).

    Returns:
      int32 array (C, 2) of (dy, dx) in pixels: `out[y, x, c] = in[y + dy, x + dx, c]`.

    Raises:
      InputError: a size that is not a positive integer, an even kernel size, or an
        unknown order.
    """
    channels = positive_int("channels", channels)
    kernel_size = positive_int("kernel_size", kernel_size)
    dilation = positive_int("dilation", dilation)
    if kernel_size % 2 == 0:
        raise InputError(
            f"kernel_size is {kernel_size}, but a shift needs a centre: use an odd one such as "
            f"{kernel_size - 1} or {kernel_size + 1}."
        )
    if order not in _ORDERS:
        raise InputError(
            f"order is {order!r}, expected 'grouped' or 'interleaved'."
            f"{did_you_mean(order, _ORDERS)}"
        )
    directions = kernel_size**2
    per_direction = channels // directions
    moved = per_direction * directions
    channel = np.arange(moved)
    if order == "grouped":
        direction = channel // max(per_direction, 1)
    else:
        direction = channel % directions
    offsets = np.zeros((channels, 2), np.int32)
    offsets[:moved, 0] = dilation * (direction // kernel_size - kernel_size // 2)
    offsets[:moved, 1] = dilation * (direction % kernel_size - kernel_size // 2)
    return offsets


def resolve_offsets(
    channels: int, kernel_size: int, dilation: int, order: Order, offsets
) -> Offsets:
    """Returns the offsets of each channel as a hashable tuple, from either kind of argument.

    Explicit `offsets` (anything that converts to an integer array (C, 2)) win over
    `kernel_size`, `dilation` and `order`.

    Raises:
      InputError: as `shift_offsets`, or explicit offsets that are not integers (C, 2).
    """
    if offsets is None:
        table = shift_offsets(channels, kernel_size, dilation, order)
    else:
        try:
            table = np.asarray(offsets)
        except ValueError:  # Rows of different lengths.
            table = np.asarray(offsets, object)
        if table.shape != (channels, 2) or not np.issubdtype(table.dtype, np.integer):
            raise InputError(
                f"offsets are {table.dtype} of shape {table.shape}, expected integers of shape "
                f"({channels}, 2): one (dy, dx) for each of the {channels} channels."
            )
    return tuple((int(dy), int(dx)) for dy, dx in table)
