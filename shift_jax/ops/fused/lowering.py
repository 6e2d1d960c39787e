"""How a fused call is lowered: by which backend, and on which part of the batch.

XLA partitions its own operations but cannot partition a kernel, and
`jax.experimental.custom_partitioning` does not exist on TPUs (JAX issue 38196). Kernels therefore
run inside the `jax.shard_map` of `shift_jax.ops.devices`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax.numpy as jnp
from jax import lax
from jax.interpreters import mlir
from jax.sharding import Mesh

from shift_jax.errors import InputError
from shift_jax.ops.devices import mapped, split_of_batch
from shift_jax.ops.fused.backends import KERNELS, backend
from shift_jax.ops.fused.choices import choose
from shift_jax.ops.fused.fused_call import FusedCall

# Kinds of TPU on which two cores work as one device.
_TPU_CORES = {"TPU v4": 2, "TPU v5": 2}


def lower(ctx, *values, static: FusedCall):
    """The lowering rule of the primitive in `shift_jax.ops.fused.call`."""
    platforms = ctx.platforms or ctx.module_context.platforms
    chosen = {
        platform: resolve(static, platform, ctx.module_context.axis_context, ctx.avals_in)
        for platform in platforms
    }
    if len(chosen) == 1:
        (function,) = chosen.values()
    else:
        function = partial(lax.platform_dependent, **chosen)
    return mlir.lower_fun(function, multiple_results=True)(ctx, *values)


def resolve(static: FusedCall, platform: str, context, leaves):
    """Returns the function of the arguments that `static` becomes on one platform.

    Args:
      static: the call.
      platform: as JAX names platforms in lowering.
      context: the axis context of the lowering, or None where there is none.
      leaves: the arguments, or anything with their shapes and dtypes.

    Raises:
      InputError: the call names kernels that cannot run there.
    """
    devices = _devices(context)
    name = static.implementation
    x_shape, dtype, features = static.shapes(leaves)
    split = split_of_batch(context, x_shape[0], static.batch_axes, decided=name is not None)
    why_not = split.why_not
    local_shape = (x_shape[0] // split.parts, *x_shape[1:])
    if name is None:
        kind = devices[0].device_kind if devices and _runs(devices[0], platform) else ""
        name = choose(kind, static.operation, local_shape, dtype, features, static.spec)
    elif static.interpret is None and platform != KERNELS[name].platform:
        raise InputError(
            f"implementation {name!r} runs on {KERNELS[name].devices} only, and this is being "
            f"compiled for {platform}: use None or 'xla'."
        )
    if name != "xla":
        if why_not is not None:
            why_not = f"implementation {name!r} cannot run here: {why_not}."
        else:
            unsupported = backend(name).unsupported
            why_not = unsupported(local_shape, jnp.dtype(dtype), features, static.spec)
        if why_not and static.implementation:
            raise InputError(why_not)
    if name == "xla" or why_not:
        return partial(static.run, "xla")
    function = partial(static.run, name)
    if name == "pallas_tpu" and devices and devices[0].device_kind in _TPU_CORES:
        function = partial(function, cores=_TPU_CORES[devices[0].device_kind])
    return mapped(function, split, static.arguments_with_batch(), static.results_with_batch())


def _devices(context) -> tuple:
    """The devices of the computation, or () where JAX does not know them, as in some exports."""
    mesh = getattr(context, "mesh", None)
    if isinstance(mesh, Mesh):
        return tuple(mesh.devices.flat)
    return tuple(getattr(context, "device_assignment", None) or ())


def _runs(device: Any, platform: str) -> bool:
    return device.platform == {"cuda": "gpu"}.get(platform, platform)
