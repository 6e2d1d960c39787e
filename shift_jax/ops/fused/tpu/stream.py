"""The frame of the TPU kernels: tiles stream through a ring of rows on the chip."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
from jax import ShapeDtypeStruct, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from shift_jax.ops.fused.tpu.plan import Plan, Window

if TYPE_CHECKING:
    import numpy as np
    from jax import Array


class Stream:
    """A grid of (core, step): in each step one tile arrives and an earlier one is computed.

    Rows are copied from memory once, however often they are read: they stay in the ring until no
    tile needs them. The tiles of one block of images follow those of another without a pause.
    """

    def __init__(self, plan: Plan, window: Window, cores: int):
        self.window = window
        self.plan = plan
        self.cores = cores if plan.blocks % cores == 0 else 1
        self.arrivals = plan.blocks // self.cores * plan.tiles

    def arriving(self, core, step):
        """Returns the block and tile that arrive in this step; in the end the last one again."""
        return self._split(core, jnp.minimum(step, self.arrivals - 1))

    def leaving(self, core, step):
        """Returns the block and tile that are computed in this step."""
        return self._split(core, jnp.maximum(step - self.window.lag, 0))

    def _split(self, core, index):
        block = core * (self.plan.blocks // self.cores) + lax.div(index, self.plan.tiles)
        return block, lax.rem(index, self.plan.tiles)

    def blocks(self, when, shape: tuple[int, ...]) -> pl.BlockSpec:
        """Returns the blocks [rows, …, images, channels] of an array [H, …, B, channels]."""
        middle = (0,) * (len(shape) - 3)

        def index(core, step):
            block, tile = when(core, step)
            return (tile, *middle, block, 0)

        return pl.BlockSpec(shape, index)

    def constant(self, array: Array | np.ndarray | None):
        """Returns an array that is copied once and stays on the chip, with its blocks."""
        if array is None:
            return None
        array = jnp.asarray(array)
        return array, pl.BlockSpec(array.shape, lambda core, step: (0,) * array.ndim)

    def sums(self, *shape: int):
        """Returns a float32 sum of this shape for each core; it stays on the chip to the end."""
        zeros = (0,) * len(shape)
        return (
            ShapeDtypeStruct((self.cores, *shape), jnp.float32),
            pl.BlockSpec((1, *shape), lambda core, step: (core, *zeros)),
        )

    def ring(self, planes: int, channels: int, dtype):
        """Allocates the ring; its last row is zero and stands for all rows outside the image."""
        columns = self.window.left + self.plan.problem.out_width + self.window.right
        images, dtype = words_of(self.plan.images, dtype)
        return pltpu.VMEM((self.window.kept_rows + 1, planes, columns, images, channels), dtype)

    def tile(self, channels: int, dtype):
        """Allocates one tile of the strided side on the chip."""
        images, dtype = words_of(self.plan.images, dtype)
        return pltpu.VMEM((self.plan.rows, self.plan.problem.out_width, images, channels), dtype)

    def at_start(self, *refs) -> None:
        """Sets the ring and the sums to zero before anything arrives; the margins stay zero."""

        @pl.when(pl.program_id(1) == 0)
        def _():
            for ref in refs:

                @pl.loop(0, ref.shape[0])
                def _(row, ref=ref):
                    ref[row] = jnp.zeros(ref.shape[1:], ref.dtype)

    def on_arrival(self, body) -> None:
        """Runs body(ring row of the tile's first row) when a tile arrives."""
        step = pl.program_id(1)

        @pl.when(step < self.arrivals)
        def _():
            body(lax.rem(step * self.window.rows, self.window.kept_rows))

    def on_leaving(self, body) -> None:
        """Runs body(ring_row) when a tile leaves.

        `ring_row` maps a row, relative to the tile's first, to its row in the ring.
        """
        step = pl.program_id(1) - self.window.lag
        rows, kept = self.window.rows, self.window.kept_rows

        @pl.when(step >= 0)
        def _():
            first = lax.rem(step, self.plan.tiles) * rows
            found: dict[int, Any] = {}

            def ring_row(row: int):
                if row not in found:
                    inside = (first + row >= 0) & (first + row < self.window.height)
                    wrapped = lax.rem(step * rows + row + kept, kept)
                    found[row] = jnp.where(inside, wrapped, kept)
                return found[row]

            body(ring_row)

    def call(self, name, body, inputs, outputs, scratch, flops: int, interpret) -> dict[str, Array]:
        """Runs body(references by name) for every step of the grid.

        Args:
          name: of the kernel in the compiled program.
          body: of one step.
          inputs: arrays and their blocks, or None for arrays that the call does not have.
          outputs: shapes and their blocks.
          scratch: memory on the chip.
          flops: of all steps.
          interpret: see `pallas_call`.

        Returns:
          The outputs by name.
        """
        inputs = {key: value for key, value in inputs.items() if value is not None}
        names = (*inputs, *outputs, *scratch)
        moved = [array for array, _ in (*inputs.values(), *outputs.values())]
        results = pl.pallas_call(
            lambda *refs: body(dict(zip(names, refs, strict=True))),
            grid=(self.cores, self.arrivals + self.window.lag),
            in_specs=[blocks for _, blocks in inputs.values()],
            out_specs=[blocks for _, blocks in outputs.values()],
            out_shape=[shape for shape, _ in outputs.values()],
            scratch_shapes=list(scratch.values()),
            compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
            cost_estimate=pl.CostEstimate(
                flops=flops,
                transcendentals=0,
                # Every block is copied exactly once: the ring keeps what is read again.
                bytes_accessed=sum(array.size * array.dtype.itemsize for array in moved),
            ),
            interpret=interpret,
            name=name,
        )(*(array for array, _ in inputs.values()))
        return dict(zip(outputs, results, strict=True))


def words_of(images: int, dtype):
    """Returns how many words hold a pixel of that many images on the chip, and their type."""
    return (images // 2, jnp.int32) if jnp.dtype(dtype).itemsize == 2 else (images, dtype)


def to_words(x):
    """Packs pairs of 16-bit images into 32-bit words.

    The compiler keeps 16-bit arrays in half registers. Words fill the registers, and one operation
    selects a word.
    """
    return pltpu.bitcast(x, jnp.int32) if x.dtype.itemsize == 2 else x


def from_words(words, dtype):
    """Inverts `to_words`."""
    return words if words.dtype == dtype else pltpu.bitcast(words, dtype)
