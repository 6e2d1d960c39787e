"""The gradient of the weights on a TPU."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.tpu import strips
from shift_jax.ops.fused.tpu.layout import as_row, product_flops, to_narrow, to_wide
from shift_jax.ops.fused.tpu.limits import check
from shift_jax.ops.fused.tpu.plan import Problem, make_plan
from shift_jax.ops.fused.tpu.stream import Stream
from shift_jax.ops.fused.tpu.tile import (
    apply_prologue,
    dot,
    gather,
    has_prologue,
    matrix,
    store_rows,
)

if TYPE_CHECKING:
    from jax import Array


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
    check(x.shape, x.dtype, features, spec)
    problem = Problem.of(height, width, spec.offsets, spec.stride)
    if problem.is_padded and has_prologue(spec, scale, offset):
        x, scale, offset, spec = strips.prologue_outside(x, scale, offset, spec)
    plan = make_plan(batch, problem, features, x.dtype.itemsize, wide_buffers=3)
    if plan is None:
        call = partial(weight_gradient, cores=cores, interpret=interpret)
        return strips.weight_gradient(call, x, dy, scale, offset, spec)
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
        "x": (to_wide(x, plan), stream.blocks(stream.arriving, plan.wide_block(channels))),
        "dy": (to_narrow(dy, plan), stream.blocks(stream.leaving, narrow)),
        "selector": stream.constant(problem.selectors),
        "scale": stream.constant(as_row(scale)),
        "offset": stream.constant(as_row(offset)),
    }
    outputs = {"dw": stream.sums(channels, features)}
    scratch = {
        "ring": stream.ring(spec.stride, channels, x.dtype),
        "lhs": stream.tile(channels, x.dtype),
    }
    name, flops = "shift_conv_weight_gradient", product_flops(plan, channels, features)
    result = stream.call(name, kernel, inputs, outputs, scratch, flops, interpret)
    return result["dw"].sum(0)
