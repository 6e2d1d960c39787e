"""The gradient of the input on a TPU."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from jax import ShapeDtypeStruct
from jax.experimental import pallas as pl

from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.tpu import strips
from shift_jax.ops.fused.tpu.layout import as_row, from_hwbc, product_flops, to_narrow, to_wide
from shift_jax.ops.fused.tpu.limits import check
from shift_jax.ops.fused.tpu.plan import Problem, make_plan
from shift_jax.ops.fused.tpu.stream import Stream, from_words, to_words
from shift_jax.ops.fused.tpu.tile import (
    COLUMNS,
    chunks,
    dot,
    has_prologue,
    select,
    shifted_read,
    through_prologue,
)

if TYPE_CHECKING:
    from jax import Array


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
    check((batch, *size, channels), dy.dtype, features, spec)
    problem, stride = Problem.of(*size, spec.offsets, spec.stride), spec.stride
    call = partial(input_gradient, cores=cores, interpret=interpret)
    if problem.is_padded and has_prologue(spec, scale, offset):
        return strips.prologue_gradient_outside(call, dy, w, x, scale, offset, spec, size)
    wide_buffers = 4 if x is not None else 2
    plan = make_plan(batch, problem, features, dy.dtype.itemsize, wide_buffers)
    if plan is None:
        return strips.input_gradient(call, dy, w, x, scale, offset, spec, size)
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
        "dy": (to_narrow(dy, plan), stream.blocks(stream.arriving, narrow)),
        "w": stream.constant(w.T),
        "selector": stream.constant(problem.selectors),
        "scale": stream.constant(as_row(scale)),
        "offset": stream.constant(as_row(offset)),
    }
    if x is not None:
        inputs["x"] = (to_wide(x, plan), stream.blocks(stream.leaving, wide))
    dx_shape = ShapeDtypeStruct(plan.wide_shape(channels), dy.dtype)
    outputs = {"dx": (dx_shape, stream.blocks(stream.leaving, wide))}
    if has_sums:
        outputs["sums"] = stream.sums(2, 8, channels)
    scratch = {"ring": stream.ring(1, channels, dy.dtype)}
    name, flops = "shift_conv_input_gradient", product_flops(plan, channels, features)
    result = stream.call(name, kernel, inputs, outputs, scratch, flops, interpret)
    dx = result["dx"].reshape(problem.height, problem.width, plan.batch, channels)
    sums = result["sums"].sum((0, 2)) if has_sums else (None, None)
    return (
        from_hwbc(dx, batch, *size),
        None if scale is None else sums[1],
        None if offset is None else sums[0],
    )
