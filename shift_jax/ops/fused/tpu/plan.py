"""How the TPU kernels cut an image into tiles, and which part of it they keep on the chip.

Everything here is plain integers, so that tests without a TPU can check what kernels copy, keep
and read.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

import numpy as np

from shift_jax.ops.offsets import Offsets

LANES = 128
# A v4 has 16 MiB; the rest is for what the compiler itself keeps there.
_VMEM_BYTES = 14 * 2**20
# Rows of a tile that are enough to hide the cost of a grid step.
_ENOUGH_ROWS = 1536
# Rows of one matrix product: enough to hide the loading of its weights, but few enough for its
# float32 result to take little memory.
PRODUCT_ROWS = 1024


@dataclass(frozen=True)
class Address:
    """Where one output row finds the pixels of a channel in the ring.

    Attributes:
      row: relative to the first row of the output's tile.
      plane: phase of the stride; the ring keeps the columns of each phase as one plane.
      column: of the first output, in its plane; negative in the margin.
    """

    row: int
    plane: int
    column: int


@dataclass(frozen=True)
class LaneTile:
    """Channels start:stop, which share registers, and their different offsets.

    An offset that always leads out of the image is None.
    """

    start: int
    stop: int
    offsets: tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True)
class Problem:
    """The shift and the stride of one image, in both directions.

    Attributes:
      height, width: of the wide side, the one before the stride; multiples of the stride.
      rows: of the wide side that belong to the image; those below, up to `height`, are padding.
      columns: likewise.
      offsets: of each channel.
      stride: of rows and columns.
    """

    height: int
    width: int
    rows: int
    columns: int
    offsets: Offsets
    stride: int

    @classmethod
    def of(cls, rows: int, columns: int, offsets: Offsets, stride: int) -> Problem:
        height, width = (ceil(size / stride) * stride for size in (rows, columns))
        return cls(height, width, rows, columns, offsets, stride)

    @property
    def is_padded(self) -> bool:
        return (self.height, self.width) != (self.rows, self.columns)

    @property
    def out_height(self) -> int:
        return self.height // self.stride

    @property
    def out_width(self) -> int:
        return self.width // self.stride

    @cached_property
    def lane_tiles(self) -> tuple[LaneTile, ...]:
        inside = [
            (dy, dx) if abs(dy) < self.rows and abs(dx) < self.columns else None
            for dy, dx in self.offsets
        ]
        return tuple(
            LaneTile(start, start + len(part), tuple(dict.fromkeys(part)))
            for start in range(0, len(inside), LANES)
            for part in (inside[start : start + LANES],)
        )

    @cached_property
    def selectors(self) -> np.ndarray:
        """int32 (1, C): the index of each channel's offset among the offsets of its lane tile."""
        result = np.zeros((1, len(self.offsets)), np.int32)
        for tile in self.lane_tiles:
            for channel in range(tile.start, tile.stop):
                dy, dx = self.offsets[channel]
                inside = abs(dy) < self.rows and abs(dx) < self.columns
                result[0, channel] = tile.offsets.index((dy, dx) if inside else None)
        return result

    def gathered(self, offset: tuple[int, int] | None, row: int) -> Address | None:
        """Returns what output row `row` of a tile reads, in the shifted and strided image."""
        if offset is None:
            return None
        dy, dx = offset
        return Address(self.stride * row + dy, dx % self.stride, dx // self.stride)

    def scattered(self, offset: tuple[int, int] | None, row: int, phase: int) -> Address | None:
        """Returns what row `row` and columns phase, phase + s, … read in the adjoint.

        None where the stride has left the pixels out.
        """
        if offset is None:
            return None
        dy, dx = offset
        if (row - dy) % self.stride or (phase - dx) % self.stride:
            return None
        return Address((row - dy) // self.stride, 0, (phase - dx) // self.stride)


@dataclass(frozen=True)
class Window:
    """The rows that the chip holds while the tiles of an image stream through.

    A tile is computed `lag` steps after its arrival, when the rows below that it reads are there.

    Attributes:
      rows: of a tile.
      tiles: in an image.
      height: rows of the image, without padding.
      addresses: everything that one tile reads.
    """

    rows: int
    tiles: int
    height: int
    addresses: tuple[Address, ...]

    @property
    def lag(self) -> int:
        after = max(0, *(address.row - (self.rows - 1) for address in self.addresses), 0)
        return min(ceil(after / self.rows), self.tiles - 1)

    @property
    def kept_rows(self) -> int:
        """Rows of the ring; tiles take them in turn."""
        before = max(0, *(-address.row for address in self.addresses), 0)
        history = min(ceil(before / self.rows), self.tiles - 1)
        return (self.lag + 1 + history) * self.rows

    @property
    def left(self) -> int:
        """Columns of zeros before each row."""
        return max(0, *(-address.column for address in self.addresses), 0)

    @property
    def right(self) -> int:
        """Columns of zeros after each row."""
        return max(0, *(address.column for address in self.addresses), 0)


@dataclass(frozen=True)
class Plan:
    """The tiles of one kernel call.

    Attributes:
      problem: the image.
      rows: of a tile, on the strided side; a divisor of `problem.out_height`.
      images: in a tile: as many as a register has rows.
      blocks: of that many images in the batch.
    """

    problem: Problem
    rows: int
    images: int
    blocks: int

    @property
    def tiles(self) -> int:
        return self.problem.out_height // self.rows

    @property
    def batch(self) -> int:
        """Images of all blocks."""
        return self.blocks * self.images

    def wide_block(self, channels: int) -> tuple[int, ...]:
        """A tile of the wide side: [rows, columns, phases of the stride, images, channels]."""
        stride = self.problem.stride
        return (self.rows * stride, self.problem.out_width, stride, self.images, channels)

    def narrow_block(self, features: int) -> tuple[int, ...]:
        """A tile of the strided side: [rows, columns, images, channels]."""
        return (self.rows, self.problem.out_width, self.images, features)

    def wide_shape(self, channels: int) -> tuple[int, ...]:
        problem = self.problem
        return (problem.height, problem.out_width, problem.stride, self.batch, channels)

    def narrow_shape(self, features: int) -> tuple[int, ...]:
        return (self.problem.out_height, self.problem.out_width, self.batch, features)

    @cached_property
    def gather_window(self) -> Window:
        """The rows of the wide side that the tiles of the strided side read."""
        problem = self.problem
        found = {
            problem.gathered(offset, row)
            for tile in problem.lane_tiles
            for offset in tile.offsets
            for row in range(self.rows)
        }
        rows = self.rows * problem.stride
        addresses = tuple(address for address in found if address is not None)
        return Window(rows, self.tiles, problem.rows, addresses)

    @cached_property
    def scatter_window(self) -> Window:
        """The rows of the strided side that the tiles of the wide side read."""
        problem = self.problem
        found = {
            problem.scattered(offset, row, phase)
            for tile in problem.lane_tiles
            for offset in tile.offsets
            for row in range(self.rows * problem.stride)
            for phase in range(problem.stride)
        }
        addresses = tuple(address for address in found if address is not None)
        return Window(self.rows, self.tiles, problem.out_height, addresses)


def make_plan(
    batch: int, problem: Problem, features: int, itemsize: int, wide_buffers: int
) -> Plan | None:
    """Chooses the tiles; returns None if not even one output row fits on the chip.

    Args:
      batch: images.
      problem: the image.
      features: channels of the strided side.
      itemsize: bytes of an element.
      wide_buffers: how many tiles of the wide side the chip holds besides the ring.
    """
    images = 32 // itemsize
    best = None
    for rows in range(1, problem.out_height + 1):
        if problem.out_height % rows:
            continue
        candidate = Plan(problem, rows, images, ceil(batch / images))
        if _vmem_bytes(candidate, features, itemsize, wide_buffers) > _VMEM_BYTES:
            break
        best = candidate
        if rows * problem.out_width * images >= _ENOUGH_ROWS:
            break
    return best


def _vmem_bytes(plan: Plan, features: int, itemsize: int, wide_buffers: int) -> int:
    problem = plan.problem
    channels = _padded(len(problem.offsets))
    features = _padded(features)
    rings = []
    for window, planes in ((plan.gather_window, problem.stride), (plan.scatter_window, 1)):
        columns = window.left + problem.out_width + window.right
        rings.append((window.kept_rows + 1) * planes * columns * plan.images * channels)
    wide = prod(plan.wide_block(channels))
    narrow = prod(plan.narrow_block(features))
    product = min(narrow, PRODUCT_ROWS * features)
    weights = channels * features
    elements = max(rings) + wide_buffers * wide + 2 * narrow + 2 * weights
    return itemsize * elements + 4 * (product + weights)


def _padded(size: int) -> int:
    return ceil(size / LANES) * LANES
