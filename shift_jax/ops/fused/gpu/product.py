"""The kernel behind the forward pass and the input's gradient: runs of channels times blocks."""

from __future__ import annotations

from collections.abc import Callable

import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
from jax import ShapeDtypeStruct, lax
from jax.experimental import pallas as pl

from shift_jax.ops.fused.gpu.reader import Reader
from shift_jax.ops.fused.gpu.tiles import (
    ROWS,
    RUN,
    across,
    as_rows,
    div,
    fit,
    gpu_kernel,
    operand,
    rem,
    tiling,
)


def product(
    a, starts, blocks, epilogue: Callable, *, vectors, other, statistics: bool, interpret,
    prologue=None, relu: bool = False,
):  # fmt: skip
    """Sums over runs of 16 channels of `a`, each from its own place, times their blocks.

    Args:
      a: [B, H, W, K].
      starts: [tiles, runs, 3], the dy, dx and first channel of each run.
      blocks: [tiles, runs, 16, width].
      epilogue: takes the float32 product [pixels, width], and the vectors and `other` in the same
        shape; returns what to store and a pair to sum over all pixels.
      vectors: of up to tiles * width elements each.
      other: [B, H, W, up to tiles * width].
      statistics: whether to return the sums.
      interpret: see `pallas_call`.
      prologue: from `prologue_of`.
      relu: whether a ReLU follows the prologue.

    Returns:
      [B, H, W, tiles * width] in the dtype of `a`, and float32 (2, tiles * width) or None.
    """
    tiles, runs, _, width = blocks.shape
    reader = Reader(a.shape, relu, prologue is not None, per_step=2, stages=3)
    pixel_tiles = -(-reader.pixels // ROWS)
    ahead, arrays = reader.arrays(a, starts, prologue, pixel_tiles, interpret)
    blocks = jnp.pad(blocks, ((0, 0), (0, -runs % reader.per_step), (0, 0), (0, 0)))
    runs = blocks.shape[1]
    # Copies of swizzled tiles read whole groups of 8 rows; the interpreter reads whole tiles.
    rows = pixel_tiles * ROWS if interpret else -(-reader.pixels // 8) * 8
    vectors = [fit(v.astype(jnp.float32)[None], 1, tiles * width) for v in vectors]
    vectors = jnp.concatenate(vectors) if vectors else None
    other = None if other is None else fit(as_rows(other), rows, tiles * width)

    def body(arrays, blocks, vectors, other, y, *sums, read, right, staged, lines, loaded):
        block = lax.axis_index("blocks")
        pixel_tile, tile = div(block, tiles), rem(block, tiles)
        pixel, columns = pixel_tile * ROWS, pl.ds(tile * width, width)
        if vectors is not None:
            plgpu.copy_gmem_to_smem(vectors.at[:, columns], lines, loaded)
        if other is not None:
            plgpu.copy_gmem_to_smem(other.at[pl.ds(pixel, ROWS), columns], staged, loaded)

        def run(step):
            return tile * runs + step * reader.per_step

        def fetch(step, slot, barrier):
            source = blocks.at[pl.ds(run(step) * RUN, reader.per_step * RUN)]
            plgpu.copy_gmem_to_smem(source, right.at[slot], barrier)

        def accumulate(total):
            def multiply(slot, runs):
                for i in range(reader.per_step):
                    plgpu.wgmma(total, runs.at[i], right.at[slot, pl.ds(i * RUN, RUN)])

            steps = runs // reader.per_step
            reader.loop(arrays, read, steps, ahead, run, lambda _: pixel, fetch, multiply)
            return total[...]

        total = pl.run_scoped(accumulate, plgpu.ACC((ROWS, width), jnp.float32))
        if vectors is not None or other is not None:
            plgpu.barrier_wait(loaded)
        result, summed = epilogue(
            total,
            [across(lines[i], total.shape) for i in range(0 if vectors is None else len(lines))],
            None if other is None else staged[...].astype(jnp.float32),
        )
        if sums:
            real = pixel + lax.broadcasted_iota(jnp.int32, total.shape, 0) < reader.pixels
            for i, value in enumerate(summed):
                sums[0][pixel_tile, tile, i] = jnp.sum(jnp.where(real, value, 0.0), axis=0)
        staged[...] = result.astype(staged.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(staged, y.at[pl.ds(pixel, ROWS), columns])
        plgpu.wait_smem_to_gmem(0)

    out = ShapeDtypeStruct((rows, tiles * width), a.dtype)
    sums = ShapeDtypeStruct((pixel_tiles, tiles, 2, width), jnp.float32)
    lines = 1 if vectors is None else len(vectors)
    y, *sums = gpu_kernel(
        body,
        out_type=(out, sums) if statistics else (out,),
        # One axis, since CUDA limits the others to 65535.
        grid=(pixel_tiles * tiles,),
        grid_names=("blocks",),
        scratch_types={
            "read": reader.scratch(),
            "right": operand(reader.stages, reader.per_step * RUN, width),
            "staged": plgpu.SMEM((ROWS, width), a.dtype, transforms=tiling(64, a.dtype)),
            "lines": plgpu.SMEM((lines, width), jnp.float32),
            "loaded": plgpu.Barrier(num_arrivals=1 + (vectors is not None and other is not None)),
        },
        interpret=interpret,
    )(arrays, blocks.reshape(-1, width), vectors, other)
    y = y[: reader.pixels].reshape(*a.shape[:-1], -1)
    return y, sums[0].sum(0).transpose(1, 0, 2).reshape(2, -1) if sums else None
