"""The JAX primitive of one operation of a backend, which lowering chooses.

The fastest backend depends on the device, which JAX knows only when it lowers a computation, not
when it traces it. Choosing then gives ahead-of-time compilation on a CPU the kernels of the TPU
that it compiles for. `lowering` makes the choice.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from shift_jax.ops.devices import BATCH_AXES, seeing_devices
from shift_jax.ops.fused.fused_call import FusedCall
from shift_jax.ops.fused.lowering import lower
from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Operation, Spec

INTERPRET = jax.make_user_context(None)
"""For tests: a context in which kernels called by name run on any platform, interpreted so."""


def call(
    operation: Operation,
    operands: Operands,
    *,
    spec: Spec,
    implementation: str | None,
    size: tuple[int, int] | None = None,
) -> Any:
    """Returns what a backend's function `operation` returns, see `shift_jax.ops.fused.xla`.

    Args:
      operation: the function.
      operands: its arrays.
      spec: the static half of the `shift_conv`.
      implementation: a key of `KERNELS`, or None for the fastest on the device.
      size: (H, W), for "input_gradient" alone.

    Raises:
      InputError: during lowering, if the kernels named cannot run there.
    """
    present = operands.present()
    static = FusedCall(
        operation,
        spec,
        tuple(present),
        implementation,
        size,
        INTERPRET.value,
        BATCH_AXES.value,
    )
    return static.by_position(_call_p.bind(*present.values(), static=static))


_call_p = Primitive("shift_conv")
_call_p.multiple_results = True
seeing_devices.add(_call_p)


@_call_p.def_abstract_eval
def _types_of_results(*leaves, static):
    # XLA's operations also know the mesh axes over which their results vary or are sharded.
    return jax.make_jaxpr(partial(static.run, "xla"))(*leaves).out_avals


def _bind(*leaves, static):
    return _call_p.bind(*leaves, static=static)


_call_p.def_impl(jax.jit(_bind, static_argnames="static"))
mlir.register_lowering(_call_p, lower)


def _jvp(primals, tangents, *, static):
    # `derivative` has the first derivatives, so this serves only derivatives of derivatives.
    varying = [i for i, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]

    def of_varying(*some):
        leaves = list(primals)
        for i, leaf in zip(varying, some, strict=True):
            leaves[i] = leaf
        return static.run("xla", *leaves)

    return jax.jvp(of_varying, [primals[i] for i in varying], [tangents[i] for i in varying])


ad.primitive_jvps[_call_p] = _jvp


def _batch(leaves, axes, *, static):
    mapped = [axis is not None for axis in axes]
    size = next(
        leaf.shape[axis] for leaf, axis in zip(leaves, axes, strict=True) if axis is not None
    )
    leaves = [
        jnp.moveaxis(leaf, axis, 0) if is_mapped else leaf
        for leaf, axis, is_mapped in zip(leaves, axes, mapped, strict=True)
    ]
    with_batch = static.arguments_with_batch()
    maps_weights = any(m and not batch for m, batch in zip(mapped, with_batch, strict=True))
    if all(static.results_with_batch()) and not maps_weights:
        results = _one_larger_batch(leaves, mapped, size, static)
    elif static.implementation is None:
        # XLA multiplies batches of matrices; no kernel here does.
        function = partial(static.run, "xla")
        results = jax.vmap(function, [0 if is_mapped else None for is_mapped in mapped])(*leaves)
    else:
        results = _one_after_the_other(leaves, mapped, static)
    return results, [0] * len(results)


def _one_larger_batch(leaves, mapped, size: int, static: FusedCall) -> list:
    folded = []
    for leaf, is_mapped, batch in zip(leaves, mapped, static.arguments_with_batch(), strict=True):
        if batch:
            leaf = leaf if is_mapped else jnp.broadcast_to(leaf, (size, *leaf.shape))
            leaf = leaf.reshape(-1, *leaf.shape[-3:])
        folded.append(leaf)
    results = _bind(*folded, static=static)
    return [result.reshape(size, -1, *result.shape[1:]) for result in results]


def _one_after_the_other(leaves, mapped, static: FusedCall) -> list:
    def one(some):
        some = iter(some)
        arguments = [
            next(some) if is_mapped else leaf
            for leaf, is_mapped in zip(leaves, mapped, strict=True)
        ]
        return _bind(*arguments, static=static)

    return lax.map(one, [leaf for leaf, m in zip(leaves, mapped, strict=True) if m])


batching.primitive_batchers[_call_p] = _batch
