"""The mesh of a run's devices, and the shardings of batches and of the train state."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shift_jax.errors import InputError

BATCH_AXES = ("data", "fsdp")
"""The axes of the mesh; a batch is split over both."""

# Batches in transfer to the devices while these compute.
_BATCHES_AHEAD = 2

# Smaller arrays are replicated: sharding them would save less than gathering them costs.
_SMALLEST_SHARDED_ELEMENTS = 2**14


def make_mesh(devices: Sequence[jax.Device] | None = None, fsdp: int = 1) -> Mesh:  # pyright: ignore[reportInvalidTypeForm]
    """Returns a mesh over devices, with the axes "data" and "fsdp".

    Args:
      devices: the devices, grouped by process; None means all of them.
      fsdp: number of devices that share one copy of the train state; -1 for all.

    Raises:
      InputError: the devices cannot be split into groups of `fsdp`.
    """
    if devices is None:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    grid = np.asarray(devices)
    if fsdp == -1:
        fsdp = grid.size
    if fsdp < 1 or grid.size % fsdp:
        raise InputError(
            f"fsdp is {fsdp}, expected a divisor of the number of devices, {grid.size}, or -1 "
            "for all of them."
        )
    return Mesh(grid.reshape(-1, fsdp), BATCH_AXES)


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that puts a copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch, split along its first axis."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def of_state(mesh: Mesh, state: Any) -> Any:
    """Returns the shardings of parameters, optimizer state and averages, a pytree like `state`.

    Splits each larger array along the longest axis that the mesh's "fsdp" axis divides, as in
    ZeRO-3 (Rajbhandari et al. 2020). Without such an axis, or with "fsdp" of size 1, it replicates.

    Args:
      mesh: the devices.
      state: a pytree of arrays or of `jax.ShapeDtypeStruct`.
    """
    parts = mesh.shape["fsdp"]

    def sharding(leaf) -> NamedSharding:
        axes = [axis for axis, size in enumerate(leaf.shape) if size % parts == 0]
        if parts == 1 or leaf.size < _SMALLEST_SHARDED_ELEMENTS or not axes:
            return replicated(mesh)
        longest = max(axes, key=lambda axis: leaf.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, "fsdp"))

    return jax.tree.map(sharding, state)


def to_devices(batches: Iterable[dict], mesh: Mesh) -> Iterator[dict]:
    """Yields the batches as arrays sharded over the mesh, and transfers two of them ahead.

    Args:
      batches: dicts of NumPy arrays with this process's rows of each global batch.
      mesh: the devices.
    """
    sharding = over_batch(mesh)
    batches = iter(batches)
    queue: collections.deque = collections.deque()

    def enqueue(count: int) -> None:
        for batch in itertools.islice(batches, count):
            queue.append(
                {
                    key: jax.make_array_from_process_local_data(sharding, rows)
                    for key, rows in batch.items()
                }
            )

    enqueue(_BATCHES_AHEAD)
    while queue:
        yield queue.popleft()
        enqueue(1)
