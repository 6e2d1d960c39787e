"""Tiles of a convolution: which pixels each one reads, and statistics of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of some pixels, for each channel.

    Attributes:
      count: number of pixels.
      mean, squares: float64 (C,).
    """

    count: int = 0
    mean: np.ndarray | float = 0.0
    squares: np.ndarray | float = 0.0

    def __add__(self, other: Moments) -> Moments:
        """Returns the moments of both sets of pixels (Chan, Golub and LeVeque 1983, Eq. 2.1)."""
        count = self.count + other.count
        difference = other.mean - self.mean
        return Moments(
            count,
            self.mean + difference * (other.count / count),
            self.squares + other.squares + difference**2 * (self.count * other.count / count),
        )


class Span(NamedTuple):
    """A tile along one side of an image.

    Attributes:
      start, stop: range of the output pixels that the tile computes.
      positions: int [n], the input pixels that the tile reads, including its halo; n is the same
        for all tiles.
      inside: bool [n], whether each position lies in the image or is reflected into it. The others
        stand for zeros, and their position is arbitrary.
    """

    start: int
    stop: int
    positions: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True)
class Side:
    """One side of an image that a convolution reads.

    Attributes:
      length: of the input, in pixels.
      kernel_size, stride: of the convolution.
      upsample: factor of the nearest-neighbor upsampling before the convolution.
      reflect: whether the convolution reflects at the borders; otherwise it pads with zeros.
      tile_size: largest length of an output tile, in pixels.
    """

    length: int
    kernel_size: int
    stride: int
    upsample: int
    reflect: bool
    tile_size: int

    @property
    def output_length(self) -> int:
        """Length of the output, in pixels."""
        return -(-self.length * self.upsample // self.stride)

    @property
    def tile(self) -> int:
        """Length of each output tile: the smallest one for this number of tiles."""
        tiles = -(-self.output_length // self.tile_size)
        return -(-self.output_length // tiles)

    @property
    def halo(self) -> int:
        """Number of extra output pixels before those of a tile."""
        return -(-(self.kernel_size // 2) // self.stride)

    def spans(self) -> Iterator[Span]:
        """Yields the tiles in order."""
        upsampled = self.length * self.upsample
        for start in range(0, self.output_length, self.tile):
            # The halo is a multiple of the stride, so a tile keeps the rows that the image keeps:
            # 0, s, 2s, …
            first = self.stride * (start - self.halo)
            last = self.stride * (start + self.tile - 1) + self.kernel_size // 2
            at = np.arange(first, last + 1)
            inside = (at >= 0) & (at < upsampled)
            if self.reflect:
                at = np.where(at < 0, -at, at)
                at = np.where(at >= upsampled, 2 * (upsampled - 1) - at, at)
                inside = np.ones_like(inside)
            # Any pixels may extend the last tile to the length of the others.
            at = at.clip(0, upsampled - 1) // self.upsample
            yield Span(start, min(start + self.tile, self.output_length), at, inside)
