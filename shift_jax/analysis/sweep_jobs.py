"""What a sweep has still to train, in which order, and how long it will take."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from shift_jax.analysis.count import count_macs
from shift_jax.analysis.published import cell_name
from shift_jax.analysis.results_file import Result
from shift_jax.analysis.sweep_cells import Cell
from shift_jax.models import create_model
from shift_jax.training.arrays import DATASETS


class Job(NamedTuple):
    """Seeds of one network that train at the same time.

    Attributes:
      cell: the network.
      seeds: one or more.
      epochs: of the schedule.
    """

    cell: Cell
    seeds: tuple[int, ...]
    epochs: int

    def __str__(self) -> str:
        return (
            f"{self.cell.name} seed{'s' * (len(self.seeds) > 1)} {', '.join(map(str, self.seeds))}"
        )

    @property
    def folder(self) -> str:
        """The name of the folder of this network and schedule."""
        return f"{self.cell.name}-{self.epochs}epochs"

    def is_done(self, results: Iterable[Result]) -> bool:
        """Whether each seed has a row."""
        done = {_run(row) for row in results}
        return all((self.cell.name, seed, self.epochs) in done for seed in self.seeds)


def jobs_left(
    seeds: Mapping[Cell, Sequence[int]], epochs: int, results: Iterable[Result], *, stacked: bool
) -> list[Job]:
    """Returns what has no row yet, in order.

    Args:
      seeds: of each network, the most important network first.
      epochs: of the schedule.
      results: the rows there are.
      stacked: whether the seeds of a network are one job. Else all networks come with their first
        seed, then with their second, and so on.
    """
    results = list(results)
    single = [
        (index, Job(cell, (seed,), epochs))
        for cell, some in seeds.items()
        for index, seed in enumerate(some)
    ]
    left = [(index, job) for index, job in single if not job.is_done(results)]
    if not stacked:
        # Python's sort keeps the networks' order.
        return [job for _, job in sorted(left, key=lambda item: item[0])]
    stacks: dict[Cell, tuple[int, ...]] = {}
    for _, job in left:
        stacks[job.cell] = stacks.get(job.cell, ()) + job.seeds
    return [Job(cell, some, epochs) for cell, some in stacks.items()]


def estimated_minutes(
    job: Job, dataset: str, results: Iterable[Result], device: str
) -> float | None:
    """Returns how long a job will take from its beginning; None where no row tells.

    Args:
      job: to be estimated.
      dataset: of `DATASETS`.
      results: rows of this dataset. Those of the same network on the same device are taken, where
        there are none that of the network with the most similar MACs, in proportion.
      device: as in the rows.
    """
    rows = [row for row in results if row.device == device and row.minutes and row.epochs]
    same = [row for row in rows if _run(row)[0] == job.cell.name]
    if same:
        paces = [row.minutes / row.epochs for row in same]
        return sum(paces) / len(paces) * job.epochs * len(job.seeds)
    if not rows:
        return None
    macs = count_cell(job.cell, dataset)
    like = min(rows, key=lambda row: abs(math.log(row.macs / macs)))
    return like.minutes / like.epochs * macs / like.macs * job.epochs * len(job.seeds)


@functools.cache
def count_cell(cell: Cell, dataset: str) -> int:
    """Returns the true MACs of a network for one image of a dataset."""
    model = create_model(cell.model, DATASETS[dataset].num_classes, **cell.arguments)
    return count_macs(model, DATASETS[dataset].image_shape)


def _run(row: Result) -> tuple[str, int, float]:
    """What tells one run from all others."""
    name = cell_name(row.model, row.expansion, row.reduction, row.allocation)
    return name, row.seed, row.epochs
