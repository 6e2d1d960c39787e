"""The forward pass on a GPU."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from shift_jax.ops.fused.gpu.limits import check
from shift_jax.ops.fused.gpu.product import product
from shift_jax.ops.fused.gpu.runs import prologue_of, runs_of
from shift_jax.ops.fused.gpu.tiles import widths
from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.xla import pointwise


def forward(operands: Operands, *, spec: Spec, interpret: Any = None):
    """Returns y and its sums or None, see `shift_jax.ops.fused.xla.forward`.

    XLA multiplies by `expand`.
    """
    x, bias, expand = operands.x, operands.bias, operands.expand
    features = operands.w.shape[1]
    x = x if expand is None else pointwise(x, expand, x.dtype)
    check(x.shape, x.dtype, features, spec)
    width = widths(features)[-1]
    members, starts = runs_of(spec.offsets, x.shape)
    w = jnp.pad(operands.w, ((0, 1), (0, -features % width)))
    blocks = w[members].reshape(*members.shape, -1, width).transpose(2, 0, 1, 3)

    def epilogue(y, vectors, residual):
        y = y if bias is None else y + vectors[0]
        y = jnp.maximum(y, 0) if spec.relu == "before_residual" else y
        y = y if residual is None else y + residual
        y = jnp.maximum(y, 0) if spec.relu == "last" else y
        return y, (y, y * y)

    y, sums = product(
        x,
        np.broadcast_to(starts, (len(blocks), *starts.shape)),
        blocks,
        epilogue,
        prologue=prologue_of(operands, members, len(blocks)),
        relu=spec.prologue_relu,
        vectors=[] if bias is None else [bias],
        other=operands.residual,
        statistics=spec.statistics,
        interpret=interpret,
    )
    return y[..., :features], None if sums is None else sums[:, :features]
