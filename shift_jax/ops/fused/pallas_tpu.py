"""`shift_conv` as Pallas kernels for TPUs: the shifted tensor exists only on the chip.

Arrays are [H, W, B, C] inside, so that a register holds sixteen images' channels of one pixel
(eight in float32) and every shift is an address. `docs/kernels.md` has the whole story.
"""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING

import jax.numpy as jnp
from jax import ShapeDtypeStruct
from jax.experimental import pallas as pl

from shift_jax.errors import InputError
from shift_jax.ops.fused import tpu_strips
from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.tpu_plan import PRODUCT_ROWS, Plan, Problem, make_plan
from shift_jax.ops.fused.tpu_stream import Stream, from_words, to_words
from shift_jax.ops.fused.tpu_tile import (
    COLUMNS,
    accumulate,
    apply_prologue,
    chunks,
    dot,
    expand_rows,
    gather,
    has_prologue,
    matrix,
    select,
    shifted_read,
    store_rows,
    through_prologue,
    without_padding,
)

if TYPE_CHECKING:
    from jax import Array


def forward(
    x: Array,
    w: Array,
    bias: Array | None,
    scale: Array | None,
    offset: Array | None,
    residual: Array | None,
    expand: Array | None = None,
    *,
    spec: Spec,
    cores: int = 1,
    interpret=False,
):
    """The fused shift and pointwise convolution.

    Args:
      x: [B, H, W, C], bfloat16 or float32; [B, H, W, D] with `expand`.
      w: (C, N), of the type of `x`.
      bias, scale, offset: float32 (N,), (C,), (C,).
      residual: [B, ⌈H/s⌉, ⌈W/s⌉, N].
      expand: (D, C), a pointwise convolution before the prologue, of the type of `x`; what it
        makes stays on the chip.
      spec: what is computed.
      cores: of the chip that work as one device: 2 on TPU v4 and v5p.
      interpret: see `pallas_call`.

    Returns:
      y [B, ⌈H/s⌉, ⌈W/s⌉, N] and, if the spec wants them, its float32 sums (2, N); else None.
    """
    batch, height, width, _ = x.shape
    channels, features = w.shape
    _check((batch, height, width, channels), x.dtype, features, spec)
    problem = Problem.of(height, width, spec.offsets, spec.stride)
    if problem.is_padded and has_prologue(spec, scale, offset):
        x, scale, offset, spec = tpu_strips.prologue_outside(x, scale, offset, spec, expand)
        expand = None
    plan = make_plan(batch, problem, features, x.dtype.itemsize, wide_buffers=3)
    if plan is None:
        call = partial(forward, cores=cores, interpret=interpret)
        return tpu_strips.forward(call, x, w, bias, scale, offset, residual, expand, spec)
    stream = Stream(plan, plan.gather_window, cores)
    narrow = plan.narrow_block(features)

    def kernel(refs):
        ring, lhs = refs["ring"], refs["lhs"]
        stream.at_start(ring, *([refs["sums"]] if spec.statistics else []))

        @stream.on_arrival
        def _(first):
            store = store_rows if expand is None else partial(expand_rows, refs["expand"])
            store(ring, first, refs["x"], stream.window, partial(apply_prologue, refs, spec))

        @stream.on_leaving
        def _(ring_row):
            gather(lhs, ring, refs["selector"], plan, ring_row)
            for rows in chunks(plan.rows, PRODUCT_ROWS // (narrow[1] * plan.images)):
                for columns in chunks(narrow[1], PRODUCT_ROWS // plan.images):
                    at = (slice(rows.start, rows.stop), slice(columns.start, columns.stop))
                    y = dot(matrix(lhs[at], x.dtype), refs["w"][...])
                    y = y.reshape(len(rows), len(columns), *narrow[2:])
                    y = y if bias is None else y + refs["bias"][...]
                    y = jnp.maximum(y, 0) if spec.relu == "before_residual" else y
                    if residual is not None:
                        y = y + refs["residual"][at].astype(jnp.float32)
                    y = jnp.maximum(y, 0) if spec.relu == "last" else y
                    refs["y"][at] = y.astype(x.dtype)
                    if spec.statistics:
                        seen = y if batch == plan.batch else without_padding(y, stream, batch)
                        accumulate(refs["sums"], 0, seen)
                        accumulate(refs["sums"], 1, seen * seen)

    inputs = {
        "x": (_to_wide(x, plan), stream.blocks(stream.arriving, plan.wide_block(x.shape[-1]))),
        "w": stream.constant(w),
        "expand": stream.constant(expand),
        "selector": stream.constant(problem.selectors),
        "scale": stream.constant(_row(scale)),
        "offset": stream.constant(_row(offset)),
        "bias": stream.constant(_row(bias)),
    }
    if residual is not None:
        inputs["residual"] = (_to_narrow(residual, plan), stream.blocks(stream.leaving, narrow))
    y_shape = ShapeDtypeStruct(plan.narrow_shape(features), x.dtype)
    outputs = {"y": (y_shape, stream.blocks(stream.leaving, narrow))}
    if spec.statistics:
        outputs["sums"] = stream.sums(2, 8, features)
    scratch = {
        "ring": stream.ring(spec.stride, channels, x.dtype),
        "lhs": stream.tile(channels, x.dtype),
    }
    flops = _flops(plan, channels, features)
    if expand is not None:
        flops += 2 * prod(plan.wide_shape(channels)) * expand.shape[0]
    result = stream.call("shift_conv", kernel, inputs, outputs, scratch, flops, interpret)
    y = _from_hwbc(result["y"], batch, -(-height // spec.stride), -(-width // spec.stride))
    return y, result["sums"].sum((0, 2)) if spec.statistics else None


def input_gradient(
    dy: Array,
    w: Array,
    x: Array | None,
    scale: Array | None,
    offset: Array | None,
    *,
    spec: Spec,
    size: tuple[int, int],
    cores: int = 1,
    interpret=False,
):
    """The product with the transposed weights, shifted back and taken through the prologue.

    Args:
      dy: [B, ⌈H/s⌉, ⌈W/s⌉, N], the cotangent of the product.
      w: (C, N), of the type of `dy`.
      x: [B, H, W, C]; None without a prologue.
      scale, offset: float32 (C,).
      spec: what is computed.
      size: (H, W).
      cores, interpret: as in `forward`.

    Returns:
      dx [B, H, W, C], and the float32 (C,) gradients of `scale` and `offset` or None.
    """
    batch, features, channels = dy.shape[0], dy.shape[3], w.shape[0]
    _check((batch, *size, channels), dy.dtype, features, spec)
    problem, stride = Problem.of(*size, spec.offsets, spec.stride), spec.stride
    call = partial(input_gradient, cores=cores, interpret=interpret)
    if problem.is_padded and has_prologue(spec, scale, offset):
        return tpu_strips.prologue_gradient_outside(call, dy, w, x, scale, offset, spec, size)
    wide_buffers = 4 if x is not None else 2
    plan = make_plan(batch, problem, features, dy.dtype.itemsize, wide_buffers)
    if plan is None:
        return tpu_strips.input_gradient(call, dy, w, x, scale, offset, spec, size)
    stream = Stream(plan, plan.scatter_window, cores)
    wide, narrow = plan.wide_block(channels), plan.narrow_block(features)
    has_sums = scale is not None or offset is not None

    def kernel(refs):
        ring = refs["ring"]
        stream.at_start(ring, *([refs["sums"]] if has_sums else []))

        @stream.on_arrival
        def _(first):
            arrived = refs["dy"][...].reshape(-1, features)
            product = to_words(dot(arrived, refs["w"][...]).astype(dy.dtype))
            rows = product.reshape(*narrow[:2], -1, channels)
            for row in range(plan.rows):
                ring[first + row, 0, pl.ds(stream.window.left, narrow[1])] = rows[row]

        @stream.on_leaving
        def _(ring_row):
            for row in range(wide[0]):
                for phase in range(stride):
                    for tile in problem.lane_tiles:
                        sources = [problem.scattered(o, row, phase) for o in tile.offsets]
                        lanes = slice(tile.start, tile.stop)
                        read = partial(shifted_read, ring, ring_row, stream.window, lanes)
                        for columns in chunks(narrow[1], COLUMNS):
                            words = select(read, refs["selector"][:, lanes], sources, columns)
                            found = from_words(words, dy.dtype)
                            at = (row, slice(columns.start, columns.stop), phase, slice(None))
                            if x is not None:
                                found = through_prologue(refs, spec, found, (*at, lanes))
                            refs["dx"][(*at, lanes)] = found

    inputs = {
        "dy": (_to_narrow(dy, plan), stream.blocks(stream.arriving, narrow)),
        "w": stream.constant(w.T),
        "selector": stream.constant(problem.selectors),
        "scale": stream.constant(_row(scale)),
        "offset": stream.constant(_row(offset)),
    }
    if x is not None:
        inputs["x"] = (_to_wide(x, plan), stream.blocks(stream.leaving, wide))
    dx_shape = ShapeDtypeStruct(plan.wide_shape(channels), dy.dtype)
    outputs = {"dx": (dx_shape, stream.blocks(stream.leaving, wide))}
    if has_sums:
        outputs["sums"] = stream.sums(2, 8, channels)
    scratch = {"ring": stream.ring(1, channels, dy.dtype)}
    name, flops = "shift_conv_input_gradient", _flops(plan, channels, features)
    result = stream.call(name, kernel, inputs, outputs, scratch, flops, interpret)
    dx = result["dx"].reshape(problem.height, problem.width, plan.batch, channels)
    sums = result["sums"].sum((0, 2)) if has_sums else (None, None)
    return (
        _from_hwbc(dx, batch, *size),
        None if scale is None else sums[1],
        None if offset is None else sums[0],
    )


def weight_gradient(
    x: Array,
    dy: Array,
    scale: Array | None,
    offset: Array | None,
    *,
    spec: Spec,
    cores: int = 1,
    interpret=False,
):
    """Returns dw, float32 (C, N): the shifted input times the cotangent, over all pixels.

    Arguments as in `forward` and `input_gradient`.
    """
    batch, height, width, channels = x.shape
    features = dy.shape[3]
    _check(x.shape, x.dtype, features, spec)
    problem = Problem.of(height, width, spec.offsets, spec.stride)
    if problem.is_padded and has_prologue(spec, scale, offset):
        x, scale, offset, spec = tpu_strips.prologue_outside(x, scale, offset, spec)
    plan = make_plan(batch, problem, features, x.dtype.itemsize, wide_buffers=3)
    if plan is None:
        call = partial(weight_gradient, cores=cores, interpret=interpret)
        return tpu_strips.weight_gradient(call, x, dy, scale, offset, spec)
    stream = Stream(plan, plan.gather_window, cores)

    def kernel(refs):
        ring, lhs, dw = refs["ring"], refs["lhs"], refs["dw"]
        stream.at_start(ring, dw)

        @stream.on_arrival
        def _(first):
            store_rows(ring, first, refs["x"], stream.window, partial(apply_prologue, refs, spec))

        @stream.on_leaving
        def _(ring_row):
            gather(lhs, ring, refs["selector"], plan, ring_row)
            rhs = refs["dy"][...].reshape(-1, features)
            dw[0] += dot(matrix(lhs[...], x.dtype), rhs, contract=(0, 0))

    narrow = plan.narrow_block(features)
    inputs = {
        "x": (_to_wide(x, plan), stream.blocks(stream.arriving, plan.wide_block(channels))),
        "dy": (_to_narrow(dy, plan), stream.blocks(stream.leaving, narrow)),
        "selector": stream.constant(problem.selectors),
        "scale": stream.constant(_row(scale)),
        "offset": stream.constant(_row(offset)),
    }
    outputs = {"dw": stream.sums(channels, features)}
    scratch = {
        "ring": stream.ring(spec.stride, channels, x.dtype),
        "lhs": stream.tile(channels, x.dtype),
    }
    name, flops = "shift_conv_weight_gradient", _flops(plan, channels, features)
    result = stream.call(name, kernel, inputs, outputs, scratch, flops, interpret)
    return result["dw"].sum(0)


def unsupported(x_shape, x_dtype, features: int, spec: Spec) -> str | None:
    """Returns one sentence why the kernels cannot do this, or None."""
    dtype = jnp.dtype(x_dtype)
    if dtype not in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)):
        return (
            f"implementation 'pallas_tpu' takes bfloat16 and float32, not {dtype.name}: use None "
            "or 'xla'."
        )
    batch, height, width, channels = x_shape
    while True:
        problem = Problem.of(height, width, spec.offsets, spec.stride)
        if make_plan(batch, problem, features, dtype.itemsize, wide_buffers=4):
            return None
        half = tpu_strips.halved(width, spec)
        if half == width:
            return (
                f"implementation 'pallas_tpu' keeps rows of {width} pixels with {channels} and "
                f"{features} channels on the chip, which are too many: use None or 'xla'."
            )
        width = half


def _check(x_shape, dtype, features: int, spec: Spec) -> None:
    reason = unsupported(x_shape, dtype, features, spec)
    if reason:
        raise InputError(reason)


def _flops(plan: Plan, channels: int, features: int) -> int:
    return 2 * prod(plan.narrow_shape(features)) * channels


def _to_wide(x, plan: Plan):
    """[B, H, W, C] as [H, W / s, s, B, C], padded to whole blocks."""
    problem = plan.problem
    x = _to_hwbc(x, plan.batch, problem.height, problem.width)
    return x.reshape(plan.wide_shape(x.shape[-1]))


def _to_narrow(x, plan: Plan):
    return _to_hwbc(x, plan.batch, plan.problem.out_height, plan.problem.out_width)


def _to_hwbc(x, batch: int, height: int, width: int):
    missing = [(0, n - have) for n, have in zip((batch, height, width), x.shape[:3], strict=True)]
    if any(more for _, more in missing):
        x = jnp.pad(x, [*missing, (0, 0)])
    return x.transpose(1, 2, 0, 3)


def _from_hwbc(x, batch: int, height: int, width: int):
    return x.transpose(2, 0, 1, 3)[:batch, :height, :width]


def _row(vector):
    return None if vector is None else vector.astype(jnp.float32)[None]
