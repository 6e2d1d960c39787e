"""The devices of a run as a mesh, and batches laid over it."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

# Batches on their way to the devices while these compute.
_BATCHES_AHEAD = 2


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Returns a mesh with the one axis "data" over `devices`, by default all there are."""
    return Mesh(np.asarray(devices if devices is not None else jax.devices()), ("data",))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of parameters: a copy on each device."""
    return NamedSharding(mesh, PartitionSpec())


def over_batch(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: split along its first axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def to_devices(batches: Iterable[dict], mesh: Mesh) -> Iterator[dict]:
    """Yields the batches as arrays sharded over the mesh, transferring two of them early.

    Args:
      batches: dicts of numpy arrays, each this process's rows of the global batch.
      mesh: where they go.
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
