"""The gradient of the weights on a TPU: the shifted input times dy, over all pixels."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.tpu import strips
from shift_jax.ops.fused.tpu.layout import as_row, product_flops, to_narrow, to_wide
from shift_jax.ops.fused.tpu.limits import check
from shift_jax.ops.fused.tpu.plan import Problem, make_plan
from shift_jax.ops.fused.tpu.stream import Stream
from shift_jax.ops.fused.tpu.tile import apply_prologue, dot, gather, matrix, store_rows

if TYPE_CHECKING:
    from jax import Array


def weight_gradient(operands: Operands, *, spec: Spec, cores: int = 1, interpret=False) -> Array:
    """Returns dw in float32, see `shift_jax.ops.fused.xla.weight_gradient`.

    Args:
      operands: `x`, `dy` and the prologue's vectors.
      spec: the static half.
      cores, interpret: as in `forward`.

    Raises:
      InputError: the sentence of `unsupported`.
    """
    batch, height, width, channels = operands.x.shape
    features = operands.dy.shape[3]
    check(operands.x.shape, operands.x.dtype, features, spec)
    problem = Problem.of(height, width, spec.offsets, spec.stride)
    if problem.is_padded and operands.has_prologue(spec):
        operands, spec = strips.prologue_outside(operands, spec)
    x = operands.x
    plan = make_plan(batch, problem, features, x.dtype.itemsize, wide_buffers=3)
    if plan is None:
        call = partial(weight_gradient, cores=cores, interpret=interpret)
        return strips.weight_gradient(call, operands, spec)
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
        "dy": (to_narrow(operands.dy, plan), stream.blocks(stream.leaving, narrow)),
        "selector": stream.constant(problem.selectors),
        "prologue_scale": stream.constant(as_row(operands.prologue_scale)),
        "prologue_bias": stream.constant(as_row(operands.prologue_bias)),
    }
    outputs = {"dw": stream.sums(channels, features)}
    scratch = {
        "ring": stream.ring(spec.stride, channels, x.dtype),
        "lhs": stream.tile(channels, x.dtype),
    }
    name, flops = "shift_conv_weight_gradient", product_flops(plan, channels, features)
    result = stream.call(name, kernel, inputs, outputs, scratch, flops, interpret)
    return result["dw"].sum(0)
