"""The folder of a run while it trains: what it goes on from, and what it has cost so far."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shift_jax.errors import InputError
from shift_jax.training.runs.checkpoint_files import read_manifest
from shift_jax.training.runs.checkpoints import Checkpoints


class Run(contextlib.AbstractContextManager):
    """A run's folder, which has to be its config's and which no other process may have open.

    Enter it before its use. In a run of several processes, all make the same calls.

    Args:
      workdir: the folder.
      config: plain JSON values.
      best_metric: ranks the checkpoints, larger is better.
      identity: JSON-able; a checkpoint with another identity is of another training.
      commit: of the code.
      begin_again: what to do if no checkpoint is readable: begin again, or raise.

    Attributes:
      checkpoints: those in the folder, while entered.
      seconds: what training has taken up to the newest checkpoint.
      commits: of the code that trained it, the first one first.
    """

    def __init__(
        self,
        workdir: Path,
        config: dict,
        *,
        best_metric: str,
        identity: Mapping[str, Any] | None = None,
        commit: str = "",
        begin_again: bool = False,
    ):
        self.workdir, self.config = workdir, config
        self.seconds = 0.0
        self.commits: list[str] = []
        self._best_metric, self._begin_again = best_metric, begin_again
        self._identity, self._commit = dict(identity or {}), commit

    def __enter__(self) -> Run:
        self.checkpoints = Checkpoints(
            self.workdir / "checkpoints",
            keep_latest=self.config["keep_latest"],
            keep_best=self.config["keep_best"],
            best_metric=self._best_metric,
        )
        return self

    def __exit__(self, *_) -> None:
        self.checkpoints.close()

    def restore(self, template: Any, at_most: float = math.inf) -> tuple[Any, int] | None:
        """Returns the newest readable state up to step `at_most`, and its step; None without any.

        Raises:
          InputError: a state of another training, or none that is readable.
        """
        found = self.checkpoints.restore_latest(template, at_most, begin_again=self._begin_again)
        if found is not None:
            folder = self.workdir / "checkpoints" / str(found[1])
            # Checkpoints of older versions do not have it.
            training = read_manifest(folder).get("training", {})
            self._check_identity(folder, training.get("identity", {}))
            self.seconds, self.commits = training.get("seconds", 0.0), training.get("commits", [])
        return found

    def resumable_steps(self) -> set[int]:
        """Returns the steps to go on from without losing more than the newest save."""
        steps = self.checkpoints.steps()
        return {0, *steps} if len(steps) < 2 else set(steps)

    def save(self, step: int, state: Any) -> None:
        """Starts to save the state, which may be donated once this returns."""
        if self._commit and self._commit not in self.commits:
            self.commits = [*self.commits, self._commit]
        self.checkpoints.save(step, state, config=self.config, training=self._training())

    def complete(self, step: int, metrics: dict[str, float]) -> None:
        """Gives the checkpoint of `step` the metrics of its evaluation."""
        self.checkpoints.add_metrics(step, metrics, training=self._training())

    def _training(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "commits": self.commits, "identity": self._identity}

    def _check_identity(self, folder: Path, theirs: Mapping[str, Any]) -> None:
        ours = self._identity
        for key in sorted(theirs.keys() | ours.keys()):
            if theirs.get(key) != ours.get(key):
                raise InputError(
                    f"{folder} is of another training ({key} is {theirs.get(key)!r} there and "
                    f"{ours.get(key)!r} here): choose another --workdir, or delete that one."
                )


def restore_together(runs: Sequence[Run], template: Any) -> tuple[list[Any], int] | None:
    """Returns the states of runs that train side by side, and the step that all of them are at.

    That is the newest that all have; newer checkpoints are removed. None is step 0.

    Args:
      runs: that have one of their `resumable_steps` in common.
      template: of each run's state, as for `Checkpoints.restore`.

    Raises:
      InputError: runs that cannot go on from the same step, and what `Run.restore` raises.
    """
    while True:
        common = set.intersection(*(run.resumable_steps() for run in runs))
        if not common:
            raise InputError("The runs have no step in common to go on from: train them apart.")
        restored = [run.restore(template, max(common)) for run in runs]
        steps = {0 if found is None else found[1] for found in restored}
        if len(steps) == 1:
            break
        # Some were damaged and are set aside now, so that an older step may be the newest.
    (step,) = steps
    for run in runs:
        for newer in run.checkpoints.steps():
            if newer > step:
                run.checkpoints.delete(newer)
    return None if restored[0] is None else ([state for state, _ in restored], step)
