"""The gradient of the input on a TPU: the product with wᵀ, shifted back, through the prologue."""

from __future__ import annotations

from functools import partial

from jax import ShapeDtypeStruct
from jax.experimental import pallas as pl

from shift_jax.ops.fused.operands import Operands
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
    select,
    shifted_read,
    through_prologue,
)


def input_gradient(
    operands: Operands, *, spec: Spec, size: tuple[int, int], cores: int = 1, interpret=False
):
    """Returns dx, dscale and dbias, see `shift_jax.ops.fused.xla.input_gradient`.

    Args:
      operands: `dy`, `w` and, where there is a prologue, `x` and its vectors.
      spec: the static half.
      size: (H, W).
      cores, interpret: as in `forward`.

    Raises:
      InputError: the sentence of `unsupported`.
    """
    x, w, dy = operands.x, operands.w, operands.dy
    scale, bias = operands.prologue_scale, operands.prologue_bias
    batch, features, channels = dy.shape[0], dy.shape[3], w.shape[0]
    check((batch, *size, channels), dy.dtype, features, spec)
    problem, stride = Problem.of(*size, spec.offsets, spec.stride), spec.stride
    call = partial(input_gradient, cores=cores, interpret=interpret)
    if problem.is_padded and operands.has_prologue(spec):
        return strips.prologue_gradient_outside(call, operands, spec, size)
    wide_buffers = 4 if x is not None else 2
    plan = make_plan(batch, problem, features, dy.dtype.itemsize, wide_buffers)
    if plan is None:
        return strips.input_gradient(call, operands, spec, size)
    stream = Stream(plan, plan.scatter_window, cores)
    wide, narrow = plan.wide_block(channels), plan.narrow_block(features)
    has_sums = scale is not None or bias is not None

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
                        addresses = [problem.scattered(o, row, phase) for o in tile.offsets]
                        lanes = slice(tile.start, tile.stop)
                        read = partial(shifted_read, ring, ring_row, stream.window, lanes)
                        for columns in chunks(narrow[1], COLUMNS):
                            words = select(read, refs["selector"][:, lanes], addresses, columns)
                            found = from_words(words, dy.dtype)
                            at = (row, slice(columns.start, columns.stop), phase, slice(None))
                            if x is not None:
                                found = through_prologue(refs, spec, found, (*at, lanes))
                            refs["dx"][(*at, lanes)] = found

    inputs = {
        "dy": (to_narrow(dy, plan), stream.blocks(stream.arriving, narrow)),
        "w": stream.constant(w.T),
        "selector": stream.constant(problem.selectors),
        "prologue_scale": stream.constant(as_row(scale)),
        "prologue_bias": stream.constant(as_row(bias)),
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
        None if bias is None else sums[0],
    )
