"""How the GPU kernels read the operand that is shifted."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import pallas as pl

from shift_jax.ops.fused.gpu.tiles import ROWS, RUN, across, as_rows, div, fit, operand, rem


@dataclass(frozen=True)
class Reader:
    """How the kernels read one operand: shifted, after the prologue, through a ring of buffers.

    Attributes:
      shape: of the array, [B, H, W, C].
      relu: whether a ReLU follows the prologue.
      has_prologue: whether the prologue has a scale and a bias.
      per_step: runs in one step of the pipeline.
      stages: buffers of the ring.
    """

    shape: tuple[int, ...]
    relu: bool
    has_prologue: bool
    per_step: int
    stages: int

    @property
    def pixels(self) -> int:
        return prod(self.shape[:-1])

    def arrays(self, a, starts, prologue, pixel_tiles: int, interpret) -> tuple[int, tuple]:
        """Prepares the arguments of a kernel.

        Returns:
          The number of rows of zeros before the array.
          The array, as rows of pixels; the distance in pixels, dy, dx and first channel of each
          run, padded with empty runs to whole steps; the prologue or None.
        """
        missing = -starts.shape[1] % self.per_step
        # Runs that begin after the last channel are zero.
        nothing = np.broadcast_to([0, 0, self.shape[3]], (len(starts), missing, 3))
        dy, dx, channel = np.concatenate([starts, nothing], axis=1).reshape(-1, 3).T
        table = np.stack([dy * self.shape[2] + dx, dy, dx, channel], axis=1).astype(np.int32)
        if prologue is not None:
            prologue = jnp.pad(prologue, ((0, 0), (0, missing), (0, 0), (0, 0))).reshape(-1, RUN)
        a, ahead = as_rows(a), 0
        if interpret:
            # The copy engine reads zeros outside of an array, the interpreter does not.
            ahead = max(0, -int(table[:, 0].min()))
            a = fit(a, pixel_tiles * ROWS + max(0, table[:, 0].max()), channel.max() + 2 * RUN)
            a = jnp.pad(a, ((ahead, 0), (0, 0)))
        return ahead, (a, table, prologue)

    def scratch(self) -> dict:
        return {
            "fetched": plgpu.SMEM((self.stages, self.per_step, ROWS, RUN), jnp.bfloat16),
            "shifted": operand(2, self.per_step, ROWS, RUN),
            "scales": plgpu.SMEM((self.stages, 2 * self.per_step, RUN), jnp.float32),
            "ready": plgpu.Barrier(
                num_arrivals=self.per_step + 1 + self.has_prologue, num_barriers=self.stages
            ),
        }

    def loop(self, arrays, read, steps: int, ahead: int, run, pixel, fetch, multiply) -> None:
        """Calls `multiply(slot, runs)` with the shifted runs [per_step, 128, 16] of each step.

        Args:
          arrays, ahead: from `arrays`.
          read: references to `scratch`.
          steps: their number.
          run: the first run of a step.
          pixel: the first pixel of a step.
          fetch: starts the copy of the other operand of `step` to its `slot`, with `barrier`.
          multiply: issues one product for each run.
        """
        a, table, prologue = arrays

        def load(step):
            slot = rem(step, self.stages)
            barrier = read["ready"].at[slot]
            fetch(step, slot, barrier)
            for i in range(self.per_step):
                rows = pl.ds(pixel(step) + (table[run(step) + i, 0] + ahead), ROWS)
                source = a.at[rows, pl.ds(table[run(step) + i, 3], RUN)]
                plgpu.copy_gmem_to_smem(source, read["fetched"].at[slot, i], barrier)
            if prologue is not None:
                source = prologue.at[pl.ds(2 * run(step), 2 * self.per_step)]
                plgpu.copy_gmem_to_smem(source, read["scales"].at[slot], barrier)

        def body(step, carry):
            step = lax.convert_element_type(step, jnp.int32)  # Else 64-bit with `jax_enable_x64`.
            slot, spare = rem(step, self.stages), rem(step, 2)
            plgpu.barrier_wait(read["ready"].at[slot])
            for i in range(self.per_step):
                value = read["fetched"][slot, i]
                if prologue is not None:
                    scale, bias = (
                        across(read["scales"][slot, 2 * i + j], value.shape) for j in range(2)
                    )
                    value = (value.astype(jnp.float32) * scale + bias).astype(value.dtype)
                value = jnp.maximum(value, 0) if self.relu else value
                inside = self._inside(pixel(step), *(table[run(step) + i, j] for j in (1, 2)))
                # A select, not a product: 0 · NaN and 0 · inf are not 0.
                read["shifted"][spare, i] = jnp.where(inside, value, jnp.zeros_like(value))
            plgpu.commit_smem()
            multiply(slot, read["shifted"].at[spare])
            # The products of all earlier steps are done, so their operands may be overwritten.
            plgpu.wgmma_wait(self.per_step)
            pl.when(step + self.stages - 1 < steps)(lambda: load(step + self.stages - 1))
            return carry

        for step in range(min(self.stages - 1, steps)):
            load(np.int32(step))
        lax.fori_loop(0, steps, body, None)

    def _inside(self, pixel, dy, dx):
        """Whether each of the 128 pixels from `pixel` on stays in its image when moved."""
        _, height, width, _ = self.shape
        pixel = pixel + lax.broadcasted_iota(jnp.int32, (ROWS, RUN), 0)
        y, x = rem(div(pixel, width), height) + dy, rem(pixel, width) + dx
        return (y >= 0) & (y < height) & (x >= 0) & (x < width) & (pixel < self.pixels)
