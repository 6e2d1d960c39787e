"""The rows of a results file, gathered by network and schedule."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from absl import flags

from shift_jax.errors import InputError
from shift_jax.paper.sweep.results_file import Result, read_results
from shift_jax.paper.tables.published import families, network_name


class NetworkRuns(NamedTuple):
    """One network trained for one number of epochs, with one seed or several.

    Attributes:
      name: such as "shiftresnet20-3", see `published.network_name`.
      epochs: of the schedule.
      runs: one for each seed, by seed.
    """

    name: str
    epochs: float
    runs: tuple[Result, ...]

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


def rows_of_flag(flag: flags.FlagHolder[str]) -> list[Result]:
    """Returns the rows of the results file that a flag names; only its default may be absent.

    Raises:
      InputError: a file that was named is not there, or what `read_results` refuses.
    """
    if flag.present and not Path(flag.value).exists():
        raise InputError(
            f"--{flag.name}={flag.value} is not there: name the results file of a sweep."
        )
    return read_results(flag.value)


def grouped_runs(results: Iterable[Result]) -> list[NetworkRuns]:
    """Gathers runs that differ in their seed only.

    Args:
      results: rows in any order; of rows with the same network, epochs and seed the last counts.

    Returns:
      In the order of Table 5, other networks after it by name; long schedules first.
    """
    gathered: dict[tuple[str, float], dict[int, Result]] = {}
    for run in results:
        gathered.setdefault((name_of(run), run.epochs), {})[run.seed] = run
    groups = (
        NetworkRuns(name, epochs, tuple(by_seed[seed] for seed in sorted(by_seed)))
        for (name, epochs), by_seed in gathered.items()
    )
    return sorted(groups, key=lambda group: (*order(group.name), -group.epochs))


def name_of(run: Result) -> str:
    """Returns the name of a run's network, see `published.network_name`."""
    return network_name(run.model, run.expansion, run.reduction, run.allocation)


def order(name: str) -> tuple[int, str]:
    """Returns a sort key: Table 5's order, then the name; a network's allocations follow it."""
    table = [name for family in families() for name in family.networks]
    network = name.partition("@")[0]
    return (table.index(network) if network in table else len(table), name)
