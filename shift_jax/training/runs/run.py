"""A run while it trains: the checkpoint it resumes from, and how long it has taken."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shift_jax.data import Fingerprint
from shift_jax.errors import InputError
from shift_jax.training.runs.checkpoint_files import read_manifest
from shift_jax.training.runs.checkpoints import Checkpoints


class Run(contextlib.AbstractContextManager):
    """The checkpoints of a run, and facts about its training that they carry.

    It must be entered, and no other process may use the folder. In a run of several processes, all
    make the same calls.

    Args:
      workdir: the run's folder.
      config: plain JSON values.
      best_metric: name of the metric that ranks the checkpoints, where larger is better.
      identity: JSON-able facts that must be the same when the run resumes.
      commit: commit of the code.
      data: identifies the training examples, for the checkpoints.
      begin_again: whether to begin again, rather than raise, if no checkpoint is readable.

    Attributes:
      checkpoints: the checkpoints, while entered.
      seconds: duration of the training up to the newest checkpoint.
      commits: commits of the code that trained it, the first one first.
    """

    def __init__(
        self,
        workdir: Path,
        config: dict,
        *,
        best_metric: str,
        identity: Mapping[str, Any] | None = None,
        commit: str = "",
        data: Fingerprint | None = None,
        begin_again: bool = False,
    ):
        self.workdir, self.config = workdir, config
        self.seconds = 0.0
        self.commits: list[str] = []
        self._best_metric, self._begin_again = best_metric, begin_again
        self._identity, self._commit, self._data = dict(identity or {}), commit, data

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
        """Returns the newest readable state up to step `at_most`, and its step, or None.

        Raises:
          InputError: a state of another training, or no readable one.
        """
        found = self.checkpoints.restore_latest(template, at_most, begin_again=self._begin_again)
        if found is not None:
            folder = self.workdir / "checkpoints" / str(found[1])
            # Checkpoints of older versions lack it.
            training = read_manifest(folder).get("training", {})
            self._check_identity(folder, training.get("identity", {}))
            self.seconds, self.commits = training.get("seconds", 0.0), training.get("commits", [])
        return found

    def resumable_steps(self) -> set[int]:
        """Returns the steps from which the run can resume without losing more than one save."""
        steps = self.checkpoints.steps()
        return {0, *steps} if len(steps) < 2 else set(steps)

    def save(self, step: int, state: Any) -> None:
        """Starts to save a state, which may be donated once this returns."""
        if self._commit and self._commit not in self.commits:
            self.commits = [*self.commits, self._commit]
        self.checkpoints.save(step, state, config=self.config, training=self._training())

    def complete(self, step: int, metrics: dict[str, float]) -> None:
        """Adds the metrics of the evaluation at `step` to its checkpoint."""
        self.checkpoints.add_metrics(step, metrics, training=self._training())

    def _training(self) -> dict[str, Any]:
        training = {"seconds": self.seconds, "commits": self.commits, "identity": self._identity}
        return training | ({"data": self._data._asdict()} if self._data else {})

    def _check_identity(self, folder: Path, theirs: Mapping[str, Any]) -> None:
        ours = self._identity
        for key in sorted(theirs.keys() | ours.keys()):
            if theirs.get(key) != ours.get(key):
                raise InputError(
                    f"{folder} belongs to another training ({key} is {theirs.get(key)!r} there and "
                    f"{ours.get(key)!r} here): choose another --workdir, or delete that one."
                )


def restore_together(runs: Sequence[Run], template: Any) -> tuple[list[Any], int] | None:
    """Returns the states of several runs at the newest common step, and that step, or None.

    Removes newer checkpoints. None means step 0.

    Args:
      runs: runs whose `resumable_steps` overlap.
      template: the abstract state of each run, as for `Checkpoints.restore`.

    Raises:
      InputError: runs without a common step, or an error of `Run.restore`.
    """
    while True:
        common = set.intersection(*(run.resumable_steps() for run in runs))
        if not common:
            raise InputError("The runs cannot resume from a common step: train them separately.")
        restored = [run.restore(template, max(common)) for run in runs]
        steps = {0 if found is None else found[1] for found in restored}
        if len(steps) == 1:
            break
        # Damaged checkpoints are set aside now, and an older step may be the newest.
    (step,) = steps
    for run in runs:
        for newer in run.checkpoints.steps():
            if newer > step:
                run.checkpoints.delete(newer)
    states = [found[0] for found in restored if found is not None]
    return (states, step) if states else None
