"""Where each channel looks: the (dy, dx) offsets of the shift operation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
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

    Each of the k² directions gets `channels // k²` channels. The last `channels % k²` channels do
    not move; with fewer than k² channels nothing moves.

        >>> from shift_jax import shift_offsets
        >>> shift_offsets(10).tolist()
        [[-1, -1], [-1, 0], [-1, 1], [0, -1], [0, 0], [0, 1], [1, -1], [1, 0], [1, 1], [0, 0]]

    Args:
      channels: number of channels C.
      kernel_size: side k of the window that the directions span; odd.
      dilation: distance in pixels between neighboring directions.
      order: "grouped" (the paper): the channels of one direction are contiguous, directions
        in row-major order. "interleaved" (the authors' CUDA kernel): consecutive channels
        have consecutive directions. The two differ only by a permutation of the channels, which
        pointwise convolutions on both sides absorb (Eq. 9).

    Returns:
      int32 array (C, 2) of (dy, dx) in pixels: `out[y, x, c] = in[y + dy, x + dx, c]`.

    Raises:
      InputError: a size that is no positive integer, an even kernel size, or an unknown order.
    """
    channels, kernel_size, dilation = _check_sizes(channels, kernel_size, dilation)
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
    offsets[:moved] = _offsets_of(direction, kernel_size, dilation)
    return offsets


def allocate_offsets(
    channels: int, kernel_size: int, direction_weights: Sequence[float], dilation: int = 1
) -> Int[np.ndarray, "c 2"]:
    """Returns the offsets of an allocation other than the paper's uniform one (Section 4).

    The directions share all channels in proportion to their weights, rounded by largest
    remainders; of equal remainders the earlier direction wins. The channels of one direction are
    contiguous, directions in row-major order. With equal weights, the first directions get the
    channels left over, where `shift_offsets` leaves them in place.

    Args:
      channels: number of channels C.
      kernel_size: side k of the window the directions span; odd.
      direction_weights: k² numbers of 0 or more, not all 0, in row-major order, starting with
        the direction (-1, -1) · (k // 2). A direction with weight 0 gets no channel.
      dilation: distance in pixels between neighboring directions.

    Returns:
      int32 array (C, 2) of (dy, dx) in pixels, as `shift_offsets`.

    Raises:
      InputError: sizes as for `shift_offsets`, or weights that are not k² such numbers.
    """
    channels, kernel_size, dilation = _check_sizes(channels, kernel_size, dilation)
    weights = _exact_weights(direction_weights, kernel_size)
    quotas = [channels * weight / sum(weights) for weight in weights]
    counts = [math.floor(quota) for quota in quotas]
    # Sorting is stable: of equal remainders the earlier direction stays first.
    by_remainder = sorted(range(len(quotas)), key=lambda i: counts[i] - quotas[i])
    for direction in by_remainder[: channels - sum(counts)]:
        counts[direction] += 1
    return _offsets_of(np.repeat(np.arange(kernel_size**2), counts), kernel_size, dilation)


def _check_sizes(channels: int, kernel_size: int, dilation: int) -> tuple[int, int, int]:
    channels = positive_int("channels", channels)
    kernel_size = positive_int("kernel_size", kernel_size)
    dilation = positive_int("dilation", dilation)
    if kernel_size % 2 == 0:
        raise InputError(
            f"kernel_size is {kernel_size}, but a shift needs a center: use an odd size such as "
            f"{kernel_size - 1} or {kernel_size + 1}."
        )
    return channels, kernel_size, dilation


def _exact_weights(weights: Sequence[float], kernel_size: int) -> list[Fraction]:
    """Returns the weights as fractions, so that equal weights have equal remainders."""
    try:
        # Strings that look like numbers are no numbers.
        is_text = np.asarray(weights).dtype.kind not in "biufO"
        numbers = [] if is_text else np.asarray(weights, float).tolist()
        exact = [Fraction(weight) for weight in numbers]
    except (TypeError, ValueError, OverflowError):  # Not a flat sequence, NaN or infinite.
        exact = []
    if len(exact) != kernel_size**2 or min(exact) < 0 or not any(exact):
        raise InputError(
            f"direction_weights is {weights!r}, expected {kernel_size**2} numbers of 0 or more, "
            f"not all 0: one for each direction of kernel_size {kernel_size}, row by row."
        )
    return exact


def _offsets_of(
    direction: Int[np.ndarray, " c"], kernel_size: int, dilation: int
) -> Int[np.ndarray, "c 2"]:
    """Returns the (dy, dx) in pixels of directions numbered in row-major order."""
    steps = np.stack(np.divmod(direction, kernel_size), axis=-1) - kernel_size // 2
    return (dilation * steps).astype(np.int32)


def resolve_offsets(
    channels: int, kernel_size: int, dilation: int, order: Order, offsets
) -> Offsets:
    """Returns the offsets of each channel as a hashable tuple, from either kind of argument.

    Explicit `offsets`, anything that converts to an integer array (C, 2), override `kernel_size`,
    `dilation` and `order`.

    Raises:
      InputError: as `shift_offsets`, or explicit offsets that are no integers (C, 2).
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
