"""What seeds that train side by side record and report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from shift_jax.errors import InputError
from shift_jax.training.log import Log
from shift_jax.training.runs.history import History, read_history
from shift_jax.training.runs.run import Run
from shift_jax.training.steps import Piece, Steps

# Seconds between two calls of `on_steps` within an epoch.
_REPORT_EVERY = 30


class Epoch(NamedTuple):
    """The results of one epoch of one seed.

    Attributes:
      loss: mean over the steps.
      train_top1: mean over the steps, a fraction.
      test: metrics on all test images after the epoch: "loss", "top1" and "top5" as fractions, and
        "examples".
    """

    loss: float
    train_top1: float
    test: dict[str, float]


class StepReport(NamedTuple):
    """The position of training, when it begins or resumes and within long epochs.

    Attributes:
      taken: number of steps since step 0.
      per_epoch: number of steps in an epoch.
      seconds_each: duration of one of the last steps; 0 when training begins or resumes.
    """

    taken: int
    per_epoch: int
    seconds_each: float


class EpochReport(NamedTuple):
    """The results of an epoch, of seeds side by side.

    Attributes:
      epoch: number of epochs done.
      seeds: the seeds.
      latest: the results of each seed.
      images_per_second: training speed, summed over the seeds, without evaluation and compilation.
      minutes_left: time to the end at the pace of this epoch.
    """

    epoch: int
    seeds: tuple[int, ...]
    latest: list[Epoch]
    images_per_second: float
    minutes_left: float


class SeedsLog(Log):
    """Writes the history of each seed, and reports steps and epochs.

    Args:
      steps: the steps of the seeds.
      runs: the run of each seed.
      start_step: step from which training continues.
      evaluate_again: whether the evaluation at `start_step` is repeated.
      on_steps: receives the position of training.
      on_epoch: receives the results of each epoch.
    """

    def __init__(
        self,
        steps: Steps,
        runs: Sequence[Run],
        start_step: int,
        evaluate_again: bool,
        *,
        on_steps: Callable[[StepReport], None],
        on_epoch: Callable[[EpochReport], None],
    ):
        self._steps, self._runs, self._on_steps, self._on_epoch = steps, runs, on_steps, on_epoch
        self._histories = [
            History(run.workdir, start_step, evaluate_again=evaluate_again) for run in runs
        ]
        self._steps_per_epoch = steps.task.steps_per_epoch
        # Metrics of the steps of this epoch, and the part of it that this process has computed.
        self._metrics = [_read(run.workdir)[1] for run in runs]
        self._seconds, self._images = 0.0, 0
        self._reported_at = time.perf_counter()
        on_steps(StepReport(start_step, self._steps_per_epoch, 0.0))

    def train_step(self, step: int, metrics: Sequence[Mapping[str, float]]) -> None:
        for history, so_far, of_seed in zip(self._histories, self._metrics, metrics, strict=True):
            history.add(step, "train", **of_seed)
            so_far.append(of_seed)

    def took(self, step: int, piece: Piece, seconds: float) -> None:
        self._seconds += seconds
        self._images += piece.images * len(self._runs)
        now = time.perf_counter()
        if step % self._steps_per_epoch and now - self._reported_at > _REPORT_EVERY:
            self._on_steps(StepReport(step, self._steps_per_epoch, seconds / piece.count))
            self._reported_at = now

    def report(
        self, step: int, metrics: Sequence[Mapping[str, float]], learning_rate: float
    ) -> None:
        self.close()

    def evaluation(
        self,
        step: int,
        metrics: Sequence[Mapping[str, float]],
        seconds: float,
        *,
        again: bool = False,
    ) -> None:
        split = self._steps.task.eval_split
        for history, of_seed in zip(self._histories, metrics, strict=True):
            if all(map(math.isfinite, of_seed.values())):
                history.add(step, "eval", split=split, **of_seed)
                history.flush()
        done = step // self._steps_per_epoch
        images = self._steps.task.examples_per_epoch * len(self._runs)
        if self._images:
            # A resumed epoch was computed here in part.
            training = self._seconds * images / self._images
            whole = training + seconds
        else:  # It was computed before a stop.
            training = whole = (sum(run.seconds for run in self._runs) + seconds) / done
        self._on_epoch(
            EpochReport(
                epoch=done,
                seeds=self._steps.seeds,
                latest=list(map(_epoch, self._metrics, metrics)),
                images_per_second=images / training,
                minutes_left=(self._steps.total_steps // self._steps_per_epoch - done) * whole / 60,
            )
        )
        self._metrics = [[] for _ in self._runs]
        self._seconds, self._images = 0.0, 0
        self._reported_at = time.perf_counter()

    def close(self) -> None:
        for history in self._histories:
            history.flush()


def read_epochs(workdir: Path) -> list[Epoch]:
    """Returns the epochs in a run's history."""
    return _read(workdir)[0]


def _read(workdir: Path) -> tuple[list[Epoch], list[Mapping[str, float]]]:
    """Reads the epochs of a history, and the metrics of the steps after them."""
    epochs: list[Epoch] = []
    steps: list[Mapping[str, float]] = []
    for record in read_history(workdir):
        metrics = {k: v for k, v in record.items() if k not in ("step", "kind", "split")}
        if record["kind"] == "train":
            steps.append(metrics)
        else:
            try:
                epochs.append(_epoch(steps, metrics))
            except (KeyError, ZeroDivisionError) as error:
                raise InputError(
                    f"The history of {workdir} is damaged: step {record['step']} has an evaluation "
                    "but not the loss and the accuracy of the steps before it; restore the file."
                ) from error
            steps = []
    return epochs, steps


def _epoch(steps: Sequence[Mapping[str, float]], test: Mapping[str, float]) -> Epoch:
    loss, top1 = (sum(step[name] for step in steps) / len(steps) for name in ("loss", "top1"))
    return Epoch(loss, top1, dict(test))
