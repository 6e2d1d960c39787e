"""Convolutions of whole images by tiles: which pixels a tile reads, and statistics over all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of some pixels, for each channel.

    Attributes:
      count: of the pixels.
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
      start, stop: the pixels of the convolution's output that the tile is for.
      positions: the pixels of the input that it reads, int [n], those of the halo among them; n is
        the same for all tiles.
      inside: bool [n], whether they lie within the image or are reflected into it; the others are
        to be zeros, and their position may be any.
    """

    start: int
    stop: int
    positions: np.ndarray
    inside: np.ndarray


@dataclass(frozen=True)
class Side:
    """One side of an image and what a convolution makes of it.

    Attributes:
      length: of the input, in pixels.
      kernel_size, stride: of the convolution.
      upsample: factor of the nearest-neighbour upsampling before it.
      reflect: whether it reflects at the borders, or else has zeros beyond.
      tile_size: largest size of the tiles of the output.
    """

    length: int
    kernel_size: int
    stride: int
    upsample: int
    reflect: bool
    tile_size: int

    @property
    def output_length(self) -> int:
        """Pixels of the output."""
        return -(-self.length * self.upsample // self.stride)

    @property
    def tile(self) -> int:
        """Pixels of the output in each tile: as few as do with the same number of tiles."""
        tiles = -(-self.output_length // self.tile_size)
        return -(-self.output_length // tiles)

    @property
    def halo(self) -> int:
        """Pixels of the output that a tile has too much before its own."""
        return -(-(self.kernel_size // 2) // self.stride)

    def spans(self) -> Iterator[Span]:
        """Yields the tiles in order."""
        upsampled = self.length * self.upsample
        for start in range(0, self.output_length, self.tile):
            # The halo is a multiple of the stride, so that a tile keeps the rows that the image
            # keeps: 0, s, 2s, …
            first = self.stride * (start - self.halo)
            last = self.stride * (start + self.tile - 1) + self.kernel_size // 2
            at = np.arange(first, last + 1)
            inside = (at >= 0) & (at < upsampled)
            if self.reflect:
                at = np.where(at < 0, -at, at)
                at = np.where(at >= upsampled, 2 * (upsampled - 1) - at, at)
                inside = np.ones_like(inside)
            # What makes the last tile as long as the others may be anything.
            at = at.clip(0, upsampled - 1) // self.upsample
            yield Span(start, min(start + self.tile, self.output_length), at, inside)
