"""What a sweep still has to train, in which order, and how long it will take."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from shift_jax.counting import count_macs
from shift_jax.errors import InputError
from shift_jax.models import create_model, list_models
from shift_jax.paper.sweep.networks import NetworkSpec
from shift_jax.paper.sweep.results_file import Result
from shift_jax.training.on_device.arrays import DATASETS


class Job(NamedTuple):
    """One network with the seeds that train at the same time.

    Attributes:
      network: the network.
      seeds: one or more.
      epochs: the length of the schedule.
    """

    network: NetworkSpec
    seeds: tuple[int, ...]
    epochs: int

    def __str__(self) -> str:
        plural = "s" * (len(self.seeds) > 1)
        return f"{self.network.name} seed{plural} {', '.join(map(str, self.seeds))}"

    @property
    def folder(self) -> str:
        """The name of the folder of this network and schedule."""
        return f"{self.network.name}-{self.epochs}epochs"

    def is_done(self, results: Iterable[Result]) -> bool:
        """Whether each seed has a row."""
        return not self.without_done(results).seeds

    def without_done(self, results: Iterable[Result]) -> Job:
        """Returns the job with those of its seeds that have no row of a controlled run."""
        done = {
            row.seed
            for row in results
            if row.is_controlled and (row.network, row.epochs) == (self.network.name, self.epochs)
        }
        return self._replace(seeds=tuple(seed for seed in self.seeds if seed not in done))


def jobs_left(
    seeds: Mapping[NetworkSpec, Sequence[int]],
    epochs: int,
    results: Iterable[Result],
    *,
    stacked: bool,
) -> list[Job]:
    """Returns the jobs without a row, in order.

    Args:
      seeds: the seeds of each network, the most important network first.
      epochs: the length of the schedule.
      results: the rows so far.
      stacked: whether the seeds of a network are one job. Otherwise all networks come with their
        first seed, then all with their second, and so on.
    """
    results = list(results)
    single = [
        (index, Job(network, (seed,), epochs))
        for network, some in seeds.items()
        for index, seed in enumerate(some)
    ]
    left = [(index, job) for index, job in single if not job.is_done(results)]
    if not stacked:
        # Python's sort keeps the networks' order.
        return [job for _, job in sorted(left, key=lambda item: item[0])]
    stacks: dict[NetworkSpec, tuple[int, ...]] = {}
    for _, job in left:
        stacks[job.network] = stacks.get(job.network, ()) + job.seeds
    return [Job(network, some, epochs) for network, some in stacks.items()]


def estimated_minutes(
    job: Job, dataset: str, results: Iterable[Result], device: str
) -> float | None:
    """Returns the minutes that a job will take from its beginning, None if no row tells.

    Args:
      job: the job.
      dataset: one of `DATASETS`.
      results: rows of this dataset. The estimate comes from the same network on the same device, or
        else from the network with the most similar MACs, in proportion.
      device: the device, as the rows name it.
    """
    rows = [
        row
        for row in results
        if row.is_controlled and row.device == device and row.minutes and row.epochs
    ]
    same = [row for row in rows if row.network == job.network.name]
    if same:
        paces = [row.minutes / row.epochs for row in same]
        return sum(paces) / len(paces) * job.epochs * len(job.seeds)
    if not rows:
        return None
    macs = count_network(job.network, dataset)
    like = min(rows, key=lambda row: abs(math.log(row.macs / macs)))
    return like.minutes / like.epochs * macs / like.macs * job.epochs * len(job.seeds)


def check_dataset(results: Iterable[Result], dataset: str) -> None:
    """Raises InputError unless the rows are of a dataset, by the MACs of their smallest network.

    Counting a larger network takes seconds. Since each sweep checks this first, all rows of a file
    are of one dataset.
    """
    known = [row for row in results if row.model in list_models()]
    if not known:
        return
    row = min(known, key=lambda row: row.macs)
    macs = count_network(NetworkSpec(row.model, row.expansion, row.reduction), dataset)
    if row.macs != macs:
        raise InputError(
            f"The row of {row.network} has {row.macs:,} MACs, but with {dataset} the network has "
            f"{macs:,}: name another file of results, or the dataset of this one."
        )


@functools.cache
def count_network(network: NetworkSpec, dataset: str) -> int:
    """Returns the true MACs of a network for one image of a dataset."""
    model = create_model(network.model, DATASETS[dataset].num_classes, **network.arguments)
    return count_macs(model, DATASETS[dataset].image_shape)
