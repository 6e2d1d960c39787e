"""`shift_conv` with its derivative: the operations of a backend, put together by the chain rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import lax

from shift_jax.ops.channels import per_channel
from shift_jax.ops.fused import xla
from shift_jax.ops.fused.call import call
from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Spec

if TYPE_CHECKING:
    from jax import Array


def differentiable(
    spec: Spec, implementation: str | None, operands: Operands
) -> tuple[Array, Array | None]:
    """Returns what `shift_jax.ops.fused.xla.forward` returns, from any backend.

    Args:
      spec: the static half of the `shift_conv`.
      implementation: a key of `KERNELS`, or None for the fastest on the device.
      operands: its arrays, without `dy`.
    """
    function: Callable[..., Any] = _fused if operands.expand is None else _expanded
    return function(spec, implementation, _varying_alike(operands))


def _varying_alike(operands: Operands) -> Operands:
    """Casts the arrays inside `jax.shard_map` so that all vary over the same axes of the mesh.

    JAX asks a custom derivative for gradients that vary as its arguments do. The transpose of the
    cast sums the gradients of arrays that were replicated.
    """

    def varying(array) -> frozenset:
        return jax.typeof(array).manual_axis_type.varying

    axes = frozenset().union(*map(varying, jax.tree.leaves(operands)))
    return jax.tree.map(
        lambda array: lax.pcast(array, tuple(axes - varying(array)), to="varying"), operands
    )


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _fused(spec: Spec, implementation: str | None, operands: Operands):
    """`differentiable` of operands without `expand`."""
    return call("forward", operands, spec=spec, implementation=implementation)


def _fused_forward(spec: Spec, implementation: str | None, operands: Operands):
    inner, inside = spec, operands
    if spec.relu == "before_residual":
        # The ReLU's sign would not survive the rounding of a sum with a larger residual.
        inner = Spec(spec.offsets, spec.stride, spec.prologue_relu, "last")
        inside = replace(operands, residual=None)
    y, sums = call("forward", inside, spec=inner, implementation=implementation)
    before_residual = y
    if spec.relu == "before_residual":
        wide = y.astype(jnp.promote_types(y.dtype, jnp.float32)) + operands.residual
        y = wide.astype(y.dtype)
        sums = xla.sums_of(y) if spec.statistics else None
    # Scalars say which of bias and residual there are, and their dtypes.
    given = [
        None if array is None else jnp.zeros((), array.dtype)
        for array in (operands.bias, operands.residual)
    ]
    sign = None if spec.relu == "none" else before_residual
    # Without the barrier XLA would also keep the float32 product that y was rounded from.
    summed = lax.optimization_barrier(y) if spec.statistics else None
    return (y, sums), (replace(operands, bias=None, residual=None), given, sign, summed)


def _fused_backward(spec: Spec, implementation: str | None, kept, cotangents):
    operands, (bias, residual), sign, y = kept
    dy, dsums = cotangents
    # Terms are added in float32.
    dy = dy.astype(jnp.promote_types(dy.dtype, jnp.float32))
    if spec.statistics:
        dsum, dsquares = (per_channel(each, dy) for each in dsums)
        dy = dy + dsum + 2 * y.astype(dy.dtype) * dsquares
    dresidual = dy
    if spec.relu != "none":
        dy = jnp.where(sign > 0, dy, 0)
    if spec.relu == "last":
        dresidual = dy
    dbias = None if bias is None else dy.sum(axis=(0, 1, 2)).astype(bias.dtype)
    dresidual = None if residual is None else dresidual.astype(residual.dtype)
    operands = replace(operands, dy=dy.astype(operands.x.dtype))
    options = {
        "spec": Spec(spec.offsets, spec.stride, spec.prologue_relu),
        "implementation": implementation,
    }
    dx, *affine = call(
        "input_gradient",
        operands if operands.has_prologue(spec) else replace(operands, x=None),
        size=operands.x.shape[1:3],
        **options,
    )
    dw = call("weight_gradient", replace(operands, w=None), **options)
    dprologue_scale, dprologue_bias = (
        None if gradient is None else gradient.astype(vector.dtype)
        for gradient, vector in zip(
            affine, (operands.prologue_scale, operands.prologue_bias), strict=True
        )
    )
    gradients = Operands(
        x=dx,
        w=dw.astype(operands.w.dtype),
        bias=dbias,
        prologue_scale=dprologue_scale,
        prologue_bias=dprologue_bias,
        residual=dresidual,
    )
    return (gradients,)


_fused.defvjp(_fused_forward, _fused_backward)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _expanded(spec: Spec, implementation: str | None, operands: Operands):
    """`differentiable` of operands with `expand`; its gradients do without that fusion."""
    return call("forward", operands, spec=spec, implementation=implementation)


def _expanded_forward(spec: Spec, implementation: str | None, operands: Operands):
    def in_two_steps(operands: Operands):
        assert operands.expand is not None
        x = xla.pointwise(operands.x, operands.expand, operands.x.dtype)
        return _fused(spec, implementation, replace(operands, x=x, expand=None))

    return jax.vjp(in_two_steps, operands)


def _expanded_backward(spec: Spec, implementation: str | None, pull_back, cotangents):
    del spec, implementation
    return pull_back(cotangents)


_expanded.defvjp(_expanded_forward, _expanded_backward)
