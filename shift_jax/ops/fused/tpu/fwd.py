"""The forward pass on a TPU: the shifted tensor exists only on the chip."""

from __future__ import annotations

from functools import partial
from math import prod

import jax.numpy as jnp
from jax import ShapeDtypeStruct

from shift_jax.ops.channels import per_channel
from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.tpu import strips
from shift_jax.ops.fused.tpu.layout import as_row, from_hwbc, product_flops, to_narrow, to_wide
from shift_jax.ops.fused.tpu.limits import check
from shift_jax.ops.fused.tpu.plan import PRODUCT_ROWS, Problem, make_plan
from shift_jax.ops.fused.tpu.stream import Stream
from shift_jax.ops.fused.tpu.tile import (
    accumulate,
    apply_prologue,
    chunks,
    dot,
    expand_rows,
    gather,
    matrix,
    store_rows,
    without_padding,
)


def forward(operands: Operands, *, spec: Spec, cores: int = 1, interpret=False):
    """Returns y and its sums or None, see `shift_jax.ops.fused.xla.forward`.

    The product with `expand` stays on the chip.

    Args:
      operands: all but `dy`; x in bfloat16 or float32.
      spec: the static half.
      cores: of the chip that work as one device: 2 on TPU v4 and v5p.
      interpret: see `pallas_call`.

    Raises:
      InputError: the sentence of `unsupported`.
    """
    batch, height, width, _ = operands.x.shape
    channels, features = operands.w.shape
    check((batch, height, width, channels), operands.x.dtype, features, spec)
    problem = Problem.of(height, width, spec.offsets, spec.stride)
    if problem.is_padded and operands.has_prologue(spec):
        operands, spec = strips.prologue_outside(operands, spec)
    x, bias, residual, expand = operands.x, operands.bias, operands.residual, operands.expand
    plan = make_plan(batch, problem, features, x.dtype.itemsize, wide_buffers=3)
    if plan is None:
        call = partial(forward, cores=cores, interpret=interpret)
        return strips.forward(call, operands, spec)
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
                    y = y if bias is None else y + per_channel(refs["bias"][...], y)
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
        "x": (to_wide(x, plan), stream.blocks(stream.arriving, plan.wide_block(x.shape[-1]))),
        "w": stream.constant(operands.w),
        "expand": stream.constant(expand),
        "selector": stream.constant(problem.selectors),
        "prologue_scale": stream.constant(as_row(operands.prologue_scale)),
        "prologue_bias": stream.constant(as_row(operands.prologue_bias)),
        "bias": stream.constant(as_row(bias)),
    }
    if residual is not None:
        inputs["residual"] = (to_narrow(residual, plan), stream.blocks(stream.leaving, narrow))
    y_shape = ShapeDtypeStruct(plan.narrow_shape(features), x.dtype)
    outputs = {"y": (y_shape, stream.blocks(stream.leaving, narrow))}
    if spec.statistics:
        outputs["sums"] = stream.sums(2, 8, features)
    scratch = {
        "ring": stream.ring(spec.stride, channels, x.dtype),
        "lhs": stream.tile(channels, x.dtype),
    }
    flops = product_flops(plan, channels, features)
    if expand is not None:
        flops += 2 * prod(plan.wide_shape(channels)) * expand.shape[0]
    result = stream.call("shift_conv", kernel, inputs, outputs, scratch, flops, interpret)
    y = from_hwbc(result["y"], batch, -(-height // spec.stride), -(-width // spec.stride))
    return y, result["sums"].sum((0, 2)) if spec.statistics else None
