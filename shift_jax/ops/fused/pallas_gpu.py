"""`shift_conv` as Pallas kernels for NVIDIA GPUs from Hopper on: no shifted tensor in memory.

Images are flattened to rows, one per pixel. A shift by (dy, dx) is then a start `dy * W + dx` rows
away, which the copy engine takes as it takes any, and what a row fetched from beyond the edge of
its image is set to zero on its way through the registers. Channels are fetched in runs of 16, the
depth of one tensor-core instruction, from any first channel on. A run has one offset: its channels
that have another meet zeros in the other operand.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any

import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
import numpy as np
from jax import ShapeDtypeStruct, lax
from jax.experimental import pallas as pl

from shift_jax.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from jax import Array

    from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.xla import pointwise

_ROWS = 128  # Pixels of a tile.
_RUN = 16  # Wider runs would meet bank conflicts between the copy engine's rows and the registers.
_BLOCKS = 264  # Two for each multiprocessor of an H100: a weight gradient's tiles and splits.
_MAX_PIXELS = 2**30  # Pixel numbers, shifted by at most one image, are 32-bit.

_kernel = partial(
    plgpu.kernel,
    compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
)


def unsupported(x_shape, x_dtype, features: int, spec: Spec) -> str | None:
    """Returns one sentence why the kernels cannot do this, or None."""
    channels, pixels = x_shape[-1], prod(x_shape[:-1])
    takes = "implementation 'pallas_gpu' takes"
    if (dtype := jnp.dtype(x_dtype)) != jnp.bfloat16:
        return f"{takes} bfloat16, not {dtype.name}."
    if spec.stride != 1:
        return f"{takes} stride 1, not {spec.stride}."
    if channels % 8 or features % 8 or not channels or not features:
        return f"{takes} multiples of 8 channels and features, not {channels} and {features}."
    if not 0 < pixels < _MAX_PIXELS:
        return f"{takes} 1 to {_MAX_PIXELS - 1} pixels, not the {pixels} of {tuple(x_shape)}."
    return None


def forward(x, w, bias, scale, offset, residual, expand=None, *, spec: Spec, interpret: Any = None):
    """Returns y and its sums or None, see `shift_jax.ops.fused.xla.forward`.

    The product with `expand` is XLA's.

    Here and below, `interpret` is that of `plgpu.kernel`, and what `unsupported` says is raised as
    an InputError.
    """
    features = w.shape[1]
    x = x if expand is None else pointwise(x, expand, x.dtype)
    _check(x.shape, x.dtype, features, spec)
    width = _widths(features)[-1]
    members, starts = _runs(spec.offsets, x.shape)
    w = jnp.pad(w, ((0, 1), (0, -features % width)))
    blocks = w[members].reshape(*members.shape, -1, width).transpose(2, 0, 1, 3)

    def epilogue(y, vectors, residual):
        y = y if bias is None else y + vectors[0]
        y = jnp.maximum(y, 0) if spec.relu == "before_residual" else y
        y = y if residual is None else y + residual
        y = jnp.maximum(y, 0) if spec.relu == "last" else y
        return y, (y, y * y)

    y, sums = _product(
        x,
        np.broadcast_to(starts, (len(blocks), *starts.shape)),
        blocks,
        epilogue,
        prologue=_prologue(scale, offset, members, len(blocks)),
        relu=spec.prologue_relu,
        vectors=[] if bias is None else [bias],
        other=residual,
        statistics=spec.statistics,
        interpret=interpret,
    )
    return y[..., :features], sums[:, :features] if spec.statistics else None


def input_gradient(dy, w, x, scale, offset, *, spec: Spec, size, interpret: Any = None):
    """Returns dx, dscale and doffset, see `shift_jax.ops.fused.xla.input_gradient`."""
    channels, features = w.shape
    shape = (len(dy), *size, channels)
    _check(shape, dy.dtype, features, spec)
    # A tile of channels takes dy once for each offset in it, and then of w only the channels that
    # have it: narrow tiles have fewer offsets, wide ones share what they fetch.
    offsets = _clipped(spec.offsets, shape)
    plans = [_plan_input_gradient(offsets, features, width) for width in _widths(channels)]
    owned, starts = min(plans, key=lambda plan: plan[0].size + plan[0][..., 0].size * _ROWS)
    tiles, _, width = owned.shape
    w = jnp.pad(w.T, ((0, -features % _RUN), (0, -channels % width)))
    w = w.reshape(1, 1, -1, _RUN, tiles, width).transpose(4, 1, 2, 3, 0, 5)
    blocks = jnp.where(owned[:, :, None, None, None], w, 0).reshape(tiles, -1, _RUN, width)

    def epilogue(g, vectors, x):
        if x is None:
            return g, None
        if spec.prologue_relu:
            g = jnp.where(x * vectors[0] + vectors[1] > 0, g, 0.0)
        return g * vectors[0], (g * x, g)

    scales = [
        jnp.ones(channels) if scale is None else scale,
        jnp.zeros(channels) if offset is None else offset,
    ]
    dx, sums = _product(
        dy,
        starts,
        blocks,
        epilogue,
        vectors=[] if x is None else scales,
        other=x,
        statistics=x is not None,
        interpret=interpret,
    )
    return (
        dx[..., :channels],
        None if scale is None else sums[0, :channels],
        None if offset is None else sums[1, :channels],
    )


def weight_gradient(x, dy, scale, offset, *, spec: Spec, interpret: Any = None) -> Array:
    """Returns dw, see `shift_jax.ops.fused.xla.weight_gradient`."""
    channels, features = x.shape[-1], dy.shape[-1]
    _check(x.shape, x.dtype, features, spec)
    width = _widths(features)[-1]
    members, starts = _runs(spec.offsets, x.shape)
    prologue = _prologue(scale, offset, members, 1)
    reader = _Reader(x.shape, spec.prologue_relu, prologue is not None, per_step=4, stages=2)
    pixel_tiles, tiles = -(-reader.pixels // _ROWS), -(-features // width)
    groups = -(-len(starts) // reader.per_step)
    splits = min(-(-_BLOCKS // (groups * tiles)), pixel_tiles)
    steps = -(-pixel_tiles // splits)
    ahead, arrays = reader.arrays(x, starts[None], prologue, splits * steps, interpret)
    # With the pixels as its last axis it is a left operand as it stands.
    rows = splits * steps * _ROWS if interpret else -(-reader.pixels // _RUN) * _RUN
    dy = _fit(dy.reshape(reader.pixels, features).T, tiles * width, rows)

    def body(arrays, dy, dw, read, left, result):
        split, group, tile = (lax.axis_index(axis) for axis in ("splits", "groups", "tiles"))
        columns = pl.ds(tile * width, width)

        def pixel(step):
            return (split * steps + step) * _ROWS

        def fetch(step, slot, barrier):
            source = dy.at[columns, pl.ds(pixel(step), _ROWS)]
            plgpu.copy_gmem_to_smem(source, left.at[slot], barrier)

        def accumulate(*sums):
            def multiply(slot, runs):
                for i, total in enumerate(sums):
                    plgpu.wgmma(total, left.at[slot], runs.at[i])

            first = group * reader.per_step
            reader.loop(arrays, read, steps, ahead, lambda _: first, pixel, fetch, multiply)
            return [total[...] for total in sums]

        accumulators = [plgpu.ACC((width, _RUN), jnp.float32)] * reader.per_step
        for i, total in enumerate(pl.run_scoped(accumulate, *accumulators)):
            result[...] = total
            plgpu.commit_smem()
            run = (split * groups + group) * reader.per_step + i
            plgpu.copy_smem_to_gmem(result, dw.at[run, columns])
            plgpu.wait_smem_to_gmem(0)

    runs = groups * reader.per_step
    dw = _kernel(
        body,
        out_type=ShapeDtypeStruct((splits * runs, tiles * width, _RUN), jnp.float32),
        grid=(splits, groups, tiles),
        grid_names=("splits", "groups", "tiles"),
        scratch_types={
            "read": reader.scratch(),
            "left": _operand(reader.stages, width, _ROWS),
            "result": _operand(width, _RUN, dtype=jnp.float32),
        },
        interpret=interpret,
    )(arrays, dy)
    dw = dw.reshape(splits, runs, -1, _RUN).sum(0).transpose(0, 2, 1).reshape(runs * _RUN, -1)
    held = np.flatnonzero(members.ravel() < channels)
    return dw[held[members.ravel()[held].argsort()], :features]


def _product(
    a, starts, blocks, epilogue: Callable, *, vectors, other, statistics: bool, interpret,
    prologue=None, relu: bool = False,
):  # fmt: skip
    """The sum over runs of 16 channels of `a`, each from its own place, times its block.

    Args:
      a: [B, H, W, K].
      starts: [tiles, runs, 3], the dy, dx and first channel of each run.
      blocks: [tiles, runs, 16, width].
      epilogue: takes the float32 product [pixels, width], and the vectors and `other` broadcast
        alike; returns what to store and a pair to sum over all pixels.
      vectors: of up to tiles * width elements each.
      other: [B, H, W, up to tiles * width].
      statistics: whether the sums are wanted.
      interpret: see `pallas_call`.
      prologue, relu: as `_prologue` returns it, and ReLU after it.

    Returns:
      [B, H, W, tiles * width] in the dtype of `a`, and float32 (2, tiles * width) or None.
    """
    tiles, runs, _, width = blocks.shape
    reader = _Reader(a.shape, relu, prologue is not None, per_step=2, stages=3)
    pixel_tiles = -(-reader.pixels // _ROWS)
    ahead, arrays = reader.arrays(a, starts, prologue, pixel_tiles, interpret)
    blocks = jnp.pad(blocks, ((0, 0), (0, -runs % reader.per_step), (0, 0), (0, 0)))
    runs = blocks.shape[1]
    # Copies of swizzled tiles want all of their 8 rows, the interpreter's all of any.
    rows = pixel_tiles * _ROWS if interpret else -(-reader.pixels // 8) * 8
    vectors = [_fit(v.astype(jnp.float32)[None], 1, tiles * width) for v in vectors]
    vectors = jnp.concatenate(vectors) if vectors else None
    other = None if other is None else _fit(_rows(other), rows, tiles * width)

    def body(arrays, blocks, vectors, other, y, *sums, read, right, staged, lines, loaded):
        block = lax.axis_index("blocks")
        pixel_tile, tile = _div(block, tiles), _rem(block, tiles)
        pixel, columns = pixel_tile * _ROWS, pl.ds(tile * width, width)
        if vectors is not None:
            plgpu.copy_gmem_to_smem(vectors.at[:, columns], lines, loaded)
        if other is not None:
            plgpu.copy_gmem_to_smem(other.at[pl.ds(pixel, _ROWS), columns], staged, loaded)

        def run(step):
            return tile * runs + step * reader.per_step

        def fetch(step, slot, barrier):
            source = blocks.at[pl.ds(run(step) * _RUN, reader.per_step * _RUN)]
            plgpu.copy_gmem_to_smem(source, right.at[slot], barrier)

        def accumulate(total):
            def multiply(slot, runs):
                for i in range(reader.per_step):
                    plgpu.wgmma(total, runs.at[i], right.at[slot, pl.ds(i * _RUN, _RUN)])

            steps = runs // reader.per_step
            reader.loop(arrays, read, steps, ahead, run, lambda _: pixel, fetch, multiply)
            return total[...]

        total = pl.run_scoped(accumulate, plgpu.ACC((_ROWS, width), jnp.float32))
        if vectors is not None or other is not None:
            plgpu.barrier_wait(loaded)
        result, summed = epilogue(
            total,
            [_across(lines[i], total.shape) for i in range(0 if vectors is None else len(lines))],
            None if other is None else staged[...].astype(jnp.float32),
        )
        if sums:
            real = pixel + lax.broadcasted_iota(jnp.int32, total.shape, 0) < reader.pixels
            for i, value in enumerate(summed):
                sums[0][pixel_tile, tile, i] = jnp.sum(jnp.where(real, value, 0.0), axis=0)
        staged[...] = result.astype(staged.dtype)
        plgpu.commit_smem()
        plgpu.copy_smem_to_gmem(staged, y.at[pl.ds(pixel, _ROWS), columns])
        plgpu.wait_smem_to_gmem(0)

    out = ShapeDtypeStruct((rows, tiles * width), a.dtype)
    sums = ShapeDtypeStruct((pixel_tiles, tiles, 2, width), jnp.float32)
    lines = 1 if vectors is None else len(vectors)
    y, *sums = _kernel(
        body,
        out_type=(out, sums) if statistics else (out,),
        # One axis: of a second one CUDA takes no more than 65535.
        grid=(pixel_tiles * tiles,),
        grid_names=("blocks",),
        scratch_types={
            "read": reader.scratch(),
            "right": _operand(reader.stages, reader.per_step * _RUN, width),
            "staged": plgpu.SMEM((_ROWS, width), a.dtype, transforms=_tiling(64, a.dtype)),
            "lines": plgpu.SMEM((lines, width), jnp.float32),
            "loaded": plgpu.Barrier(num_arrivals=1 + (vectors is not None and other is not None)),
        },
        interpret=interpret,
    )(arrays, blocks.reshape(-1, width), vectors, other)
    y = y[: reader.pixels].reshape(*a.shape[:-1], -1)
    return y, sums[0].sum(0).transpose(1, 0, 2).reshape(2, -1) if sums else None


@dataclass(frozen=True)
class _Reader:
    """How the kernels read one operand: shifted, after the prologue, through a ring of buffers.

    Attributes:
      shape: of the array, [B, H, W, C].
      relu: ReLU after the prologue.
      has_prologue: whether there is more of it.
      per_step: runs of one step of the pipeline.
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
        """What a kernel takes for it.

        Returns:
          The number of rows of zeros before the array.
          The array, as rows of pixels; the distance in pixels, dy, dx and first channel of each
          run, with runs of nothing added up to whole steps; the prologue or None.
        """
        missing = -starts.shape[1] % self.per_step
        # What begins after the last channel is zero.
        nothing = np.broadcast_to([0, 0, self.shape[3]], (len(starts), missing, 3))
        dy, dx, channel = np.concatenate([starts, nothing], axis=1).reshape(-1, 3).T
        table = np.stack([dy * self.shape[2] + dx, dy, dx, channel], axis=1).astype(np.int32)
        if prologue is not None:
            prologue = jnp.pad(prologue, ((0, 0), (0, missing), (0, 0), (0, 0))).reshape(-1, _RUN)
        a, ahead = _rows(a), 0
        if interpret:
            # The copy engine finds zeros outside of an array, the interpreter does not.
            ahead = max(0, -int(table[:, 0].min()))
            a = _fit(a, pixel_tiles * _ROWS + max(0, table[:, 0].max()), channel.max() + 2 * _RUN)
            a = jnp.pad(a, ((ahead, 0), (0, 0)))
        return ahead, (a, table, prologue)

    def scratch(self) -> dict:
        return {
            "fetched": plgpu.SMEM((self.stages, self.per_step, _ROWS, _RUN), jnp.bfloat16),
            "shifted": _operand(2, self.per_step, _ROWS, _RUN),
            "scales": plgpu.SMEM((self.stages, 2 * self.per_step, _RUN), jnp.float32),
            "ready": plgpu.Barrier(
                num_arrivals=self.per_step + 1 + self.has_prologue, num_barriers=self.stages
            ),
        }

    def loop(self, arrays, read, steps: int, ahead: int, run, pixel, fetch, multiply) -> None:
        """Calls `multiply(slot, operands)` of the shifted runs [per_step, 128, 16] of each step.

        Args:
          arrays, ahead: from `arrays`.
          read: references to `scratch`.
          steps: how many.
          run: the first run of a step.
          pixel: the first pixel of a step.
          fetch: starts the copy of the other operand of `step` to its `slot`, with `barrier`.
          multiply: issues one product for each run.
        """
        a, table, prologue = arrays

        def load(step):
            slot = _rem(step, self.stages)
            barrier = read["ready"].at[slot]
            fetch(step, slot, barrier)
            for i in range(self.per_step):
                rows = pl.ds(pixel(step) + (table[run(step) + i, 0] + ahead), _ROWS)
                source = a.at[rows, pl.ds(table[run(step) + i, 3], _RUN)]
                plgpu.copy_gmem_to_smem(source, read["fetched"].at[slot, i], barrier)
            if prologue is not None:
                source = prologue.at[pl.ds(2 * run(step), 2 * self.per_step)]
                plgpu.copy_gmem_to_smem(source, read["scales"].at[slot], barrier)

        def body(step, carry):
            step = lax.convert_element_type(step, jnp.int32)  # Else 64-bit with `jax_enable_x64`.
            slot, spare = _rem(step, self.stages), _rem(step, 2)
            plgpu.barrier_wait(read["ready"].at[slot])
            for i in range(self.per_step):
                value = read["fetched"][slot, i]
                if prologue is not None:
                    scale, offset = (
                        _across(read["scales"][slot, 2 * i + j], value.shape) for j in range(2)
                    )
                    value = (value.astype(jnp.float32) * scale + offset).astype(value.dtype)
                value = jnp.maximum(value, 0) if self.relu else value
                inside = self._inside(pixel(step), *(table[run(step) + i, j] for j in (1, 2)))
                # A select, not a product: 0 · NaN and 0 · inf are not 0.
                read["shifted"][spare, i] = jnp.where(inside, value, jnp.zeros_like(value))
            plgpu.commit_smem()
            multiply(slot, read["shifted"].at[spare])
            # Up to the step before, all products are done: their operands may be overwritten.
            plgpu.wgmma_wait(self.per_step)
            pl.when(step + self.stages - 1 < steps)(lambda: load(step + self.stages - 1))
            return carry

        for step in range(min(self.stages - 1, steps)):
            load(np.int32(step))
        lax.fori_loop(0, steps, body, None)

    def _inside(self, pixel, dy, dx):
        """Whether (dy, dx) from the 128 pixels from `pixel` on is in their image."""
        _, height, width, _ = self.shape
        pixel = pixel + lax.broadcasted_iota(jnp.int32, (_ROWS, _RUN), 0)
        y, x = _rem(_div(pixel, width), height) + dy, _rem(pixel, width) + dx
        return (y >= 0) & (y < height) & (x >= 0) & (x < width) & (pixel < self.pixels)


def _check(x_shape, x_dtype, features: int, spec: Spec) -> None:
    if reason := unsupported(x_shape, x_dtype, features, spec):
        raise InputError(reason)


def _clipped(offsets, x_shape) -> np.ndarray:
    """The offsets [C, 2]; beyond the image is beyond it, however far."""
    return np.clip(np.asarray(offsets, np.int64), np.negative(x_shape[1:3]), x_shape[1:3])


def _runs(offsets, x_shape) -> tuple[np.ndarray, np.ndarray]:
    """Runs of 16 channels in which each channel is once, with its own offset.

    Returns:
      [runs, 16], the channels, C for those that the run does not have.
      [runs, 3], the dy, dx and first channel.
    """
    offsets = _clipped(offsets, x_shape)
    channels = len(offsets)
    missing = np.ones(channels, bool)
    members, starts = [], []
    while missing.any():
        first = int(missing.argmax())
        window = np.arange(first, min(first + _RUN, channels))
        window = window[missing[window] & (offsets[window] == offsets[first]).all(-1)]
        missing[window] = False
        members.append(np.full(_RUN, channels))
        members[-1][window - first] = window
        starts.append((*offsets[first], first))
    return np.stack(members), np.asarray(starts)


def _plan_input_gradient(offsets: np.ndarray, features: int, width: int):
    """The offsets of each tile of `width` channels.

    Returns:
      [tiles, offsets, width], whether the channel has the offset.
      [tiles, runs, 3], the dy, dx and first feature of each run: all features for each offset.
    """
    tiles = np.split(offsets, range(width, len(offsets), width))
    found = [np.unique(tile, axis=0) for tile in tiles]
    runs = -(-features // _RUN)
    owned = np.zeros((len(tiles), max(map(len, found)), width), bool)
    # A run of nothing, unless set below: it begins after the last feature.
    starts = np.full((*owned.shape[:2], runs, 3), [0, 0, features])
    for i, (tile, mine) in enumerate(zip(tiles, found, strict=True)):
        owned[i, : len(mine), : len(tile)] = (mine[:, None] == tile).all(-1)
        starts[i, : len(mine), :, :2] = -mine[:, None]
        starts[i, : len(mine), :, 2] = _RUN * np.arange(runs)
    return owned, starts.reshape(len(tiles), -1, 3)


def _prologue(scale, offset, members: np.ndarray, tiles: int) -> Array | None:
    """[tiles, runs, 2, 16] of the scale and the offset of each channel of each run."""
    if scale is None and offset is None:
        return None
    scale = jnp.ones_like(offset) if scale is None else scale
    offset = jnp.zeros_like(scale) if offset is None else offset
    both = jnp.pad(jnp.stack([scale, offset]).astype(jnp.float32), ((0, 0), (0, 1)))
    return jnp.broadcast_to(both[:, members].swapaxes(0, 1), (tiles, len(members), 2, _RUN))


def _widths(size: int) -> tuple[int, ...]:
    """The widths of tiles that add no more columns than they must."""
    return (64,) if -(-size // 64) % 2 else (64, 128)


def _rows(a: Array) -> Array:
    return a.reshape(-1, a.shape[-1])


def _fit(a: Array, rows: int, columns: int) -> Array:
    """`a` with zeros added up to that size."""
    return jnp.pad(a, ((0, rows - a.shape[0]), (0, columns - a.shape[1])))


def _div(a, b: int):
    return lax.div(a, np.int32(b))


def _rem(a, b: int):
    return lax.rem(a, np.int32(b))


def _across(vector, shape: tuple[int, ...]):
    return lax.broadcast_in_dim(vector, shape, (1,))


def _tiling(columns: int, dtype) -> tuple:
    """How the tensor cores want an operand: tiles of 8 rows, swizzled."""
    swizzle = columns * jnp.dtype(dtype).itemsize
    return plgpu.TilingTransform((8, columns)), plgpu.SwizzleTransform(swizzle)


def _operand(*shape: int, dtype=jnp.bfloat16):
    return plgpu.SMEM(shape, dtype, transforms=_tiling(_RUN, dtype))
