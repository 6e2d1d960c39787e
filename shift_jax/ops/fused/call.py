"""The JAX primitive that runs one of an implementation's functions, chosen when it is lowered.

Which implementation is the fastest depends on the device, which is known when the computation is
compiled for it and not when it is traced: so ahead-of-time compilation on a CPU gets what the TPU
gets. A table of measurements decides (`choices`); a name decides before it.

Sharding: XLA partitions its own operations. It cannot partition a kernel, and
`jax.experimental.custom_partitioning` does not exist on TPUs (jax issue 38196), so that kernels run
inside a `jax.shard_map` that splits the batch over the mesh of the jitted arguments.
"""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jax.sharding import AxisType, Mesh, PartitionSpec

from shift_jax.errors import InputError
from shift_jax.ops.fused import xla
from shift_jax.ops.fused.choices import choose
from shift_jax.ops.fused.spec import Spec

try:
    # JAX has no public way for a lowering to see the devices that it lowers for.
    from jax._src.dispatch import prim_requires_devices_during_lowering as _need_devices
except ImportError:
    _need_devices = set()

KERNELS = {
    "pallas_tpu": ("shift_jax.ops.fused.tpu", "tpu", "TPUs"),
    "pallas_gpu": ("shift_jax.ops.fused.gpu", "cuda", "NVIDIA GPUs"),
}
"""The implementations other than "xla": module, platform, and the platform's name in sentences."""

# Kinds of TPU whose devices have more than one core.
_TPU_CORES = {"TPU v4": 2, "TPU v5": 2}

INTERPRET = jax.make_user_context(None)
"""For tests: a context in which named kernels run on any platform, with this `interpret`."""

BATCH_AXES = jax.make_user_context(None)
"""A context that names the axes of the mesh over which batches are split; None does not."""


# Which arguments of each operation have a batch axis.
_OPERATIONS = {
    # x, w, bias, scale, offset, residual, expand
    "forward": (True, False, False, False, False, True, False),
    "input_gradient": (True, False, True, False, False),  # dy, w, x, scale, offset
    "weight_gradient": (True, True, False, False),  # x, dy, scale, offset
}


@dataclass(frozen=True)
class _Call:
    """The static half of one call: `_OPERATIONS[operation]` of arrays, some of them None.

    `tree` has None where an array is missing. `size` is (H, W) for the input gradient alone.
    `batch_axes` are names of axes of the mesh, or None where nobody said.
    """

    operation: str
    spec: Spec
    tree: Any
    implementation: str | None
    size: tuple[int, int] | None
    interpret: Any
    batch_axes: tuple[str, ...] | None

    def run(self, name: str, *leaves, **device) -> tuple:
        """The implementation `name` of the present arrays; returns the present results.

        `device` is what the implementation wants to know of the device.
        """
        options = {"spec": self.spec, **device}
        if self.size is not None:
            options["size"] = self.size
        if name != "xla" and self.interpret is not None:
            options["interpret"] = self.interpret
        function = getattr(_module(name), self.operation)
        results = function(*self.tree.unflatten(leaves), **options)
        return tuple(jax.tree.leaves(results))

    def arguments_with_batch(self) -> list[bool]:
        """Of the present arrays, which have a batch axis."""
        arrays = self.tree.unflatten(range(self.tree.num_leaves))
        flags = _OPERATIONS[self.operation]
        return [flag for flag, array in zip(flags, arrays, strict=True) if array is not None]

    def results_with_batch(self) -> list[bool]:
        """Of the present results, which have a batch axis; the others are sums over it."""
        if self.operation == "forward":
            return [True, False] if self.spec.statistics else [True]
        if self.operation == "weight_gradient":
            return [False]
        *_, scale, offset = self.tree.unflatten(range(self.tree.num_leaves))
        return [True, *(False for array in (scale, offset) if array is not None)]

    def shapes(self, leaves) -> tuple[tuple[int, ...], str, int]:
        """The shape of what is shifted, its dtype and the number of features."""
        arrays = self.tree.unflatten(leaves)
        if self.operation == "forward":
            x, w = arrays[:2]
            return (*x.shape[:3], w.shape[0]), x.dtype.name, w.shape[1]
        if self.operation == "weight_gradient":
            x, dy = arrays[:2]
            return x.shape, x.dtype.name, dy.shape[-1]
        dy, w = arrays[:2]
        return (dy.shape[0], *self.size, w.shape[0]), w.dtype.name, w.shape[1]


def call(
    operation: str,
    *arrays,
    spec: Spec,
    implementation: str | None,
    size: tuple[int, int] | None = None,
):
    """Returns what `operation` of an implementation returns, see `shift_jax.ops.fused.xla`.

    Args:
      operation: "forward", "input_gradient" or "weight_gradient".
      *arrays: its arrays, some None.
      spec: the static half of the `shift_conv`.
      implementation: one of `KERNELS`, or None for the fastest on the device lowered for.
      size: (H, W), for "input_gradient" alone.

    Raises:
      InputError: when it is lowered, if the implementation named cannot do it there.
    """
    leaves, tree = jax.tree.flatten(arrays)
    static = _Call(operation, spec, tree, implementation, size, INTERPRET.value, BATCH_AXES.value)
    results = _call_p.bind(*leaves, static=static)
    if operation == "forward":
        return results[0], results[1] if spec.statistics else None
    if operation == "weight_gradient":
        return results[0]
    dx, *sums = results
    return dx, *(None if array is None else sums.pop(0) for array in arrays[3:])


def _module(name: str):
    # Imported where it is used: Pallas is slow to import, and not everyone has its compilers.
    return xla if name == "xla" else importlib.import_module(KERNELS[name][0])


_call_p = Primitive("shift_conv")
_call_p.multiple_results = True
_need_devices.add(_call_p)


@_call_p.def_abstract_eval
def _types_of_results(*leaves, static):
    # As XLA's operations have them, with the axes of a mesh over which they vary or are sharded.
    return jax.make_jaxpr(partial(static.run, "xla"))(*leaves).out_avals


def _bind(*leaves, static):
    return _call_p.bind(*leaves, static=static)


_call_p.def_impl(jax.jit(_bind, static_argnames="static"))


def _jvp(primals, tangents, *, static):
    # Only derivatives of derivatives come here, and forward mode never: `api` has the first ones.
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
    if all(static.results_with_batch()) and not any(
        is_mapped and not batch for is_mapped, batch in zip(mapped, with_batch, strict=True)
    ):
        # One larger batch is the same, and what kernels are made for.
        folded = [
            (leaf if is_mapped else jnp.broadcast_to(leaf, (size, *leaf.shape))).reshape(
                -1, *leaf.shape[-3:]
            )
            if batch
            else leaf
            for leaf, is_mapped, batch in zip(leaves, mapped, with_batch, strict=True)
        ]
        results = _bind(*folded, static=static)
        return [result.reshape(size, -1, *result.shape[1:]) for result in results], [0] * len(
            results
        )
    if static.implementation is None:
        # XLA has products of batches of matrices; no kernel here has.
        function = partial(static.run, "xla")
        results = jax.vmap(function, [0 if is_mapped else None for is_mapped in mapped])(*leaves)
    else:

        def one(some):
            some = iter(some)
            return _bind(
                *(
                    next(some) if is_mapped else leaf
                    for leaf, is_mapped in zip(leaves, mapped, strict=True)
                ),
                static=static,
            )

        some = [leaf for leaf, is_mapped in zip(leaves, mapped, strict=True) if is_mapped]
        results = lax.map(one, some)
    return results, [0] * len(results)


batching.primitive_batchers[_call_p] = _batch


def _lower(ctx, *values, static):
    platforms = ctx.platforms or ctx.module_context.platforms
    chosen = {
        platform: _resolve(static, platform, ctx.module_context.axis_context, ctx.avals_in)
        for platform in platforms
    }
    if len(chosen) == 1:
        (function,) = chosen.values()
    else:
        function = partial(lax.platform_dependent, **chosen)
    return mlir.lower_fun(function, multiple_results=True)(ctx, *values)


mlir.register_lowering(_call_p, _lower)


def _resolve(static: _Call, platform: str, context, leaves):
    """The function of the present arrays that `static` is on one platform."""
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
    splits = math.prod(mesh.shape[axis] for axis in axes)
    if why_not is None and x_shape[0] % splits:
        why_not = f"a batch of {x_shape[0]} cannot be split over {splits} devices"
    local_shape = (x_shape[0] // splits, *x_shape[1:])
    if name is None:
        kind = devices[0].device_kind if devices and _runs(devices[0], platform) else ""
        name = choose(kind, static.operation, local_shape, dtype, features, static.spec)
    elif static.interpret is None and platform != KERNELS[name][1]:
        raise InputError(
            f"implementation {name!r} runs on {KERNELS[name][2]} only, and this is being compiled "
            f"for {platform}: use None or 'xla'."
        )
    if name != "xla":
        if why_not is not None:
            why_not = f"implementation {name!r} cannot run here: {why_not}."
        else:
            unsupported = _module(name).unsupported
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
    """The devices lowered for, where they are known: not in every export."""
    mesh = getattr(context, "mesh", None)
    if isinstance(mesh, Mesh):
        return tuple(mesh.devices.flat)
    return tuple(getattr(context, "device_assignment", None) or ())


def _runs(device: jax.Device, platform: str) -> bool:
    return device.platform == {"cuda": "gpu"}.get(platform, platform)


def _mesh_to_map(context, devices, *, known: bool) -> tuple[Mesh | None, str | None]:
    """The mesh to split the batch over, None for one device; and why a kernel cannot run.

    `known` is whether the caller knows, or has decided, which of several axes split the batch.
    """
    if hasattr(context, "manual_axes"):
        # Inside shard_map arrays are one device's.
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
        # Arrays show their sharding only after this: which axis has the batch is not known.
        return None, "the mesh has several axes"
    return Mesh(np.asarray(devices).reshape(abstract.axis_sizes), abstract.axis_names), None


def _mapped(function, static: _Call, mesh: Mesh, axes: tuple[str, ...]):
    """`function` on each device's part of the batch; what has no batch axis is replicated."""
    over_batch, replicated = PartitionSpec(axes), PartitionSpec()
    with_batch = static.results_with_batch()

    def on_one_device(*leaves):
        return tuple(
            result if batch else lax.psum(result, axes)
            for result, batch in zip(function(*leaves), with_batch, strict=True)
        )

    return jax.shard_map(
        on_one_device,
        mesh=mesh,
        in_specs=tuple(
            over_batch if batch else replicated for batch in static.arguments_with_batch()
        ),
        out_specs=tuple(over_batch if batch else replicated for batch in with_batch),
        check_vma=False,  # Kernels do not say over which axes their results vary.
    )
