"""What a lowering knows of its devices, and how it splits a batch over them.

XLA partitions its own operations, but not kernels, and not gathers that count pixels over the whole
batch. Those run inside a `jax.shard_map` over the mesh of the jitted arguments.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jax import lax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

try:
    # JAX has no public way for a lowering to see its devices and their mesh.
    from jax._src.dispatch import prim_requires_devices_during_lowering as seeing_devices
except ImportError:
    seeing_devices = set()
"""The primitives whose lowering sees its devices and their mesh."""

BATCH_AXES = jax.make_user_context(None)
"""A context that names the mesh axes that split the batch; None says nothing about them."""


class Split(NamedTuple):
    """How the batch lies on the devices of a lowering.

    Attributes:
      mesh: to map over; None if the arrays are those of one device already.
      axes: of the mesh, that split the batch.
      parts: into which they split it.
      why_not: a clause that says why the batch cannot be mapped over, or None.
    """

    mesh: AbstractMesh | None = None
    axes: tuple[str, ...] = ()
    parts: int = 1
    why_not: str | None = None


def split_of_batch(
    context, batch: int, axes: tuple[str, ...] | None, *, decided: bool = False
) -> Split:
    """Returns how to split a batch in a lowering.

    Args:
      context: the axis context of the lowering, or None where there is none.
      batch: its size.
      axes: the value of `BATCH_AXES`.
      decided: whether all axes of a mesh split the batch if `axes` is None; otherwise a mesh must
        have one axis, because arrays show their sharding only after lowering.
    """
    if hasattr(context, "manual_axes"):
        # Inside `jax.shard_map` the arrays are those of one device.
        manual = set(context.manual_axes) | set(getattr(context.mesh, "manual_axes", ()))
        whole = manual == set(context.mesh.axis_names)
        return Split(why_not=None if whole else "some axes of the mesh around it are not manual")
    if getattr(context, "num_devices", 1) == 1:
        return Split()
    mesh = getattr(context, "abstract_mesh", None)
    if mesh is None:
        why_not = "it is compiled for several devices and no argument of the jit has a mesh"
        return Split(why_not=why_not)
    if set(mesh.axis_types) != {AxisType.Auto}:
        return Split(why_not="the mesh has axes that are not of the type Auto")
    if axes is None and not decided and sum(size > 1 for size in mesh.axis_sizes) > 1:
        return Split(why_not="the mesh has several axes")
    axes = tuple(mesh.axis_names) if axes is None else axes
    if missing := set(axes) - set(mesh.axis_names):
        return Split(why_not=f"the mesh has no axis {min(missing)!r}")
    parts = math.prod(mesh.shape[axis] for axis in axes)
    if batch % parts:
        return Split(why_not=f"a batch of {batch} cannot be split over {parts} devices")
    return Split(mesh, axes, parts)


def mapped(
    function: Callable,
    split: Split,
    arguments_with_batch: Sequence[bool],
    results_with_batch: Sequence[bool],
) -> Callable:
    """Maps a function of arrays to a tuple of arrays over the parts of the batch.

    Devices hold copies of the arguments without a batch, and sum the results without one.
    """
    if split.mesh is None:
        return function
    over_batch, replicated = PartitionSpec(split.axes), PartitionSpec()

    def specs(with_batch: Sequence[bool]) -> tuple[PartitionSpec, ...]:
        return tuple(over_batch if batch else replicated for batch in with_batch)

    def on_one_device(*leaves):
        results = zip(function(*leaves), results_with_batch, strict=True)
        return tuple(result if batch else lax.psum(result, split.axes) for result, batch in results)

    return jax.shard_map(
        on_one_device,
        mesh=split.mesh,
        in_specs=specs(arguments_with_batch),
        out_specs=specs(results_with_batch),
        check_vma=False,  # Kernels do not say over which axes their results vary.
    )
