"""The newest and the best checkpoints of a run: which to keep, and which to use."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import Literal

import orbax.checkpoint as ocp

from shift_jax.config import from_dict
from shift_jax.errors import InputError
from shift_jax.tasks import task_class
from shift_jax.training.runs.checkpoint_files import DamagedError, read_manifest
from shift_jax.training.runs.workdir import read_config


def checkpoint_of(workdir: Path, which: Literal["latest", "best"]) -> Path:
    """Returns the folder of a run's "latest" or "best" checkpoint.

    Raises:
      InputError: a folder without a run, or a run without a checkpoint.
    """
    task = from_dict(read_config(workdir)).task
    best_metric = task_class(task).best_metric if task else ""  # Imported weights have no task.
    return find_checkpoint(workdir / "checkpoints", which, best_metric)


def find_checkpoint(
    directory: str | PathLike, which: Literal["latest", "best"], best_metric: str
) -> Path:
    """Returns the folder of the newest checkpoint, or of the one with the largest metric.

    Only reads, so that the run may still be training. Raises `InputError` if there is none, or
    none with that metric.
    """
    directory = Path(directory).absolute()
    entries = directory.iterdir() if directory.is_dir() else ()
    steps = sorted(int(entry.name) for entry in entries if entry.name.isdigit())
    if which == "best":
        policy = NewestAndBest(1, 1)
        for step in steps:
            with contextlib.suppress(DamagedError):
                metrics = read_manifest(directory / str(step))["metrics"]
                policy.values[step] = metrics.get(best_metric, math.nan)
        steps = policy.best_first(steps)[:1]
    if not steps:
        with_metric = f" with the metric {best_metric!r}" if which == "best" else ""
        raise InputError(
            f"There is no checkpoint{with_metric} in {directory}: train for longer, or name "
            "another run."
        )
    return directory / str(steps[-1])


@dataclasses.dataclass
class NewestAndBest(ocp.checkpoint_managers.PreservationPolicy):
    """Keeps the newest steps and the best ones by `values[step]`, where larger is better.

    Orbax's own `BestN` gives NaN an arbitrary rank, and reads the metrics of earlier runs from
    files that stop its manager if they are damaged.
    """

    keep_latest: int
    keep_best: int
    values: dict[int, float] = dataclasses.field(default_factory=dict)

    def best_first(self, steps: Iterable[int]) -> list[int]:
        """Returns those of `steps` that have a rank, best first."""
        ranked = [step for step in steps if not math.isnan(self.values.get(step, math.nan))]
        return sorted(ranked, key=lambda step: (self.values[step], step), reverse=True)

    def should_preserve(self, checkpoints, *, context) -> list[bool]:
        """Returns whether to keep each checkpoint; Orbax calls it at every save."""
        steps = sorted(info.step for info in checkpoints)
        kept = {*steps[-self.keep_latest :], *self.best_first(steps)[: self.keep_best]}
        return [info.step in kept for info in checkpoints]
