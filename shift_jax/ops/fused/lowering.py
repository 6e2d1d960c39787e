"""How a fused call is lowered: by which backend, and on which part of the batch.

XLA partitions its own operations but cannot partition a kernel, and
`jax.experimental.custom_partitioning` does not exist on TPUs (JAX issue 38196). Kernels therefore
run inside a `jax.shard_map` that splits the batch over the mesh of the jitted arguments.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.interpreters import mlir
from jax.sharding import AxisType, Mesh, PartitionSpec

from shift_jax.errors import InputError
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
    mesh, why_not = _mesh_to_map(
        context, devices, known=name is not None or static.batch_axes is not None
    )
    axes = () if mesh is None else static.batch_axes or mesh.axis_names
    if missing := set(axes) - set(mesh.axis_names if mesh else ()):
        why_not = f"the mesh has no axis {min(missing)!r}"
        axes = ()
    splits = math.prod(mesh.shape[axis] for axis in axes) if mesh else 1
    if why_not is None and x_shape[0] % splits:
        why_not = f"a batch of {x_shape[0]} cannot be split over {splits} devices"
    local_shape = (x_shape[0] // splits, *x_shape[1:])
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
    return function if mesh is None else _mapped(function, static, mesh, axes)


def _devices(context) -> tuple:
    """The devices of the computation, or () where JAX does not know them, as in some exports."""
    mesh = getattr(context, "mesh", None)
    if isinstance(mesh, Mesh):
        return tuple(mesh.devices.flat)
    return tuple(getattr(context, "device_assignment", None) or ())


def _runs(device: Any, platform: str) -> bool:
    return device.platform == {"cuda": "gpu"}.get(platform, platform)


def _mesh_to_map(context, devices, *, known: bool) -> tuple[Mesh | None, str | None]:
    """Returns the mesh to split the batch over and why a kernel cannot run; either may be None.

    On one device there is no mesh to split over.

    Args:
      context: the axis context of the lowering.
      devices: from `_devices`.
      known: whether the caller knows, or has decided, which of several axes split the batch.
    """
    if hasattr(context, "manual_axes"):
        # Inside `jax.shard_map` the arrays are those of one device.
        manual = set(context.manual_axes) | set(getattr(context.mesh, "manual_axes", ()))
        whole = manual == set(context.mesh.axis_names)
        return None, None if whole else "some axes of the mesh around it are not manual"
    if getattr(context, "num_devices", 1) == 1:
        return None, None
    abstract = getattr(context, "abstract_mesh", None)
    if abstract is None or not devices:
        return None, "it is compiled for several devices and no argument of the jit has a mesh"
    if set(abstract.axis_types) != {AxisType.Auto}:
        return None, "the mesh has axes that are not of the type Auto"
    if not known and sum(size > 1 for size in abstract.axis_sizes) > 1:
        # Arrays show their sharding only after lowering, so the batch may lie on any axis.
        return None, "the mesh has several axes"
    return Mesh(np.asarray(devices).reshape(abstract.axis_sizes), abstract.axis_names), None


def _mapped(function, static: FusedCall, mesh: Mesh, axes: tuple[str, ...]):
    """Maps `function` over the parts of the batch; devices hold copies of the other operands."""
    over_batch, replicated = PartitionSpec(axes), PartitionSpec()

    def specs(with_batch: list[bool]) -> tuple[PartitionSpec, ...]:
        return tuple(over_batch if batch else replicated for batch in with_batch)

    def on_one_device(*leaves):
        results = zip(function(*leaves), static.results_with_batch(), strict=True)
        return tuple(result if batch else lax.psum(result, axes) for result, batch in results)

    return jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=specs(static.arguments_with_batch()),
        out_specs=specs(static.results_with_batch()),
        check_vma=False,  # Kernels do not say over which axes their results vary.
    )
