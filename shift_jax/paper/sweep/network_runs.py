"""The rows of a results file, gathered over the seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from shift_jax.errors import InputError
from shift_jax.paper.sweep.results_file import Result, read_results
from shift_jax.paper.tables.published import families


class NetworkRuns(NamedTuple):
    """Runs that differ in their seed only.

    Attributes:
      runs: one or more, by seed.
    """

    runs: tuple[Result, ...]

    @property
    def name(self) -> str:
        """The network's name, such as "shiftresnet20-3"; see `published.network_name`."""
        return self.runs[0].network

    @property
    def epochs(self) -> float:
        """The length of the schedule."""
        return self.runs[0].epochs

    @property
    def allocation(self) -> str:
        """The name of the shift allocation, "" for the uniform one."""
        return self.runs[0].allocation

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs."""
        return tuple(run.seed for run in self.runs)

    def values(self, field: str) -> list[float]:
        """Returns one field of `Result`, such as "last_top1", of every run."""
        return [getattr(run, field) for run in self.runs]

    def mean(self, field: str) -> float:
        """Returns the mean of one field of `Result` over the runs."""
        return statistics.mean(self.values(field))


def rows_of_file(path: Path | None, default: str) -> list[Result]:
    """Returns the rows of a results file.

    Args:
      path: the file; None for the default file, which may be absent.
      default: the default file.

    Raises:
      InputError: the named file does not exist, or is refused by `read_results`.
    """
    if path is not None and not path.exists():
        raise InputError(f"{path} does not exist: name the results file of a sweep.")
    return read_results(path or default)


def grouped_runs(results: Iterable[Result]) -> list[NetworkRuns]:
    """Gathers the seeds of each network, schedule, recipe and kind of shift.

    Args:
      results: rows in any order; of rows with the same seed too, the last one counts.

    Returns:
      The groups in the order of Table 5, other networks after it by name; long schedules first,
      then the authors' recipe and fixed shifts.
    """
    gathered: dict[tuple, dict[int, Result]] = {}
    for run in results:
        key = (*order(run.network), -run.epochs, not run.is_controlled, run.recipe, run.shift)
        gathered.setdefault(key, {})[run.seed] = run
    return [
        NetworkRuns(tuple(run for _, run in sorted(by_seed.items())))
        for _, by_seed in sorted(gathered.items())
    ]


def order(name: str) -> tuple[int, str]:
    """Returns a sort key: Table 5's order, then the name; a network's allocations follow it."""
    table = [network for family in families() for network in family.networks]
    network = name.partition("@")[0]
    return (table.index(network) if network in table else len(table), name)
