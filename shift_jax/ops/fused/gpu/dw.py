"""The gradient of the weights on a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct, lax
from jax.experimental import pallas as pl

from shift_jax.ops.fused.gpu.limits import check
from shift_jax.ops.fused.gpu.reader import Reader
from shift_jax.ops.fused.gpu.runs import prologue_of, runs_of
from shift_jax.ops.fused.gpu.tiles import ROWS, RUN, fit, gpu_kernel, operand, widths
from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Spec

if TYPE_CHECKING:
    from jax import Array

_BLOCKS = 264  # Two for each multiprocessor of an H100: a weight gradient's tiles and splits.


def weight_gradient(operands: Operands, *, spec: Spec, interpret: Any = None) -> Array:
    """Returns dw in float32, see `shift_jax.ops.fused.xla.weight_gradient`."""
    x, dy = operands.x, operands.dy
    channels, features = x.shape[-1], dy.shape[-1]
    check(x.shape, x.dtype, features, spec)
    width = widths(features)[-1]
    members, starts = runs_of(spec.offsets, x.shape)
    prologue = prologue_of(operands, members, 1)
    reader = Reader(x.shape, spec.prologue_relu, prologue is not None, per_step=4, stages=2)
    pixel_tiles, tiles = -(-reader.pixels // ROWS), -(-features // width)
    groups = -(-len(starts) // reader.per_step)
    splits = min(-(-_BLOCKS // (groups * tiles)), pixel_tiles)
    steps = -(-pixel_tiles // splits)
    ahead, arrays = reader.arrays(x, starts[None], prologue, splits * steps, interpret)
    # The pixels as the last axis make dy a left operand as it stands.
    rows = splits * steps * ROWS if interpret else -(-reader.pixels // RUN) * RUN
    dy = fit(dy.reshape(reader.pixels, features).T, tiles * width, rows)

    def body(arrays, dy, dw, read, left, result):
        split, group, tile = (lax.axis_index(axis) for axis in ("splits", "groups", "tiles"))
        columns = pl.ds(tile * width, width)

        def pixel(step):
            return (split * steps + step) * ROWS

        def fetch(step, slot, barrier):
            source = dy.at[columns, pl.ds(pixel(step), ROWS)]
            plgpu.copy_gmem_to_smem(source, left.at[slot], barrier)

        def accumulate(*sums):
            def multiply(slot, runs):
                for i, total in enumerate(sums):
                    plgpu.wgmma(total, left.at[slot], runs.at[i])

            first = group * reader.per_step
            reader.loop(arrays, read, steps, ahead, lambda _: first, pixel, fetch, multiply)
            return [total[...] for total in sums]

        accumulators = [plgpu.ACC((width, RUN), jnp.float32)] * reader.per_step
        for i, total in enumerate(pl.run_scoped(accumulate, *accumulators)):
            result[...] = total
            plgpu.commit_smem()
            run = (split * groups + group) * reader.per_step + i
            plgpu.copy_smem_to_gmem(result, dw.at[run, columns])
            plgpu.wait_smem_to_gmem(0)

    runs = groups * reader.per_step
    dw = gpu_kernel(
        body,
        out_type=ShapeDtypeStruct((splits * runs, tiles * width, RUN), jnp.float32),
        grid=(splits, groups, tiles),
        grid_names=("splits", "groups", "tiles"),
        scratch_types={
            "read": reader.scratch(),
            "left": operand(reader.stages, width, ROWS),
            "result": operand(width, RUN, dtype=jnp.float32),
        },
        interpret=interpret,
    )(arrays, dy)
    dw = dw.reshape(splits, runs, -1, RUN).sum(0).transpose(0, 2, 1).reshape(runs * RUN, -1)
    held = np.flatnonzero(members.ravel() < channels)
    return dw[held[members.ravel()[held].argsort()], :features]
