"""What seeds that train side by side tell: their histories, and reports for people."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from shift_jax.training.protocols import Piece
from shift_jax.training.runs.history import History, read_history
from shift_jax.training.runs.run import Run

# Seconds between two calls of `on_steps` within an epoch that is computed in many pieces.
_TELL_EVERY = 30


class Epoch(NamedTuple):
    """What one epoch of one seed came to.

    Attributes:
      loss: mean over the steps.
      train_top1: mean over the steps, a fraction.
      test: metrics of all test images after the epoch: "loss", "top1" and "top5" as fractions,
        "examples".
    """

    loss: float
    train_top1: float
    test: dict[str, float]


class StepReport(NamedTuple):
    """Where training is, told when it begins or goes on, and then within long epochs.

    Attributes:
      taken: steps in all, those before a stop included.
      per_epoch: steps in each epoch.
      seconds_each: of the latest steps; 0 when training begins or goes on.
    """

    taken: int
    per_epoch: int
    seconds_each: float


class EpochReport(NamedTuple):
    """What an epoch came to, of seeds that train side by side.

    Attributes:
      epoch: how many are done.
      seeds: those that train.
      latest: this epoch of each of them.
      images_per_second: trained on, of all seeds together, evaluation and compilation not counted.
      minutes_left: to the end, by the pace of this epoch.
    """

    epoch: int
    seeds: tuple[int, ...]
    latest: list[Epoch]
    images_per_second: float
    minutes_left: float


class SeedsLog:
    """The `shift_jax.training.protocols.Log` of seeds that train side by side.

    Args:
      runs: one for each seed.
      start_step: that they go on from.
      evaluate_again: whether the evaluation of `start_step` comes again.
      epochs: in all.
      steps_per_epoch, images_per_epoch: of each seed.
      on_steps, on_epoch: whom to tell.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        start_step: int,
        evaluate_again: bool,
        *,
        epochs: int,
        steps_per_epoch: int,
        images_per_epoch: int,
        on_steps: Callable[[StepReport], None],
        on_epoch: Callable[[EpochReport], None],
    ):
        self._runs = runs
        self._epochs, self._steps_per_epoch = epochs, steps_per_epoch
        self._images_per_epoch = images_per_epoch * len(runs)
        self._on_steps, self._on_epoch = on_steps, on_epoch
        self._histories = [
            History(run.workdir, start_step, evaluate_again=evaluate_again) for run in runs
        ]
        # Of this epoch: the metrics of its steps, and what was computed since the log was opened.
        self._steps = [_read(run.workdir)[1] for run in runs]
        self._seconds, self._images = 0.0, 0
        self._told_at = time.perf_counter()
        on_steps(StepReport(start_step, steps_per_epoch, 0.0))

    def train_step(self, step: int, metrics: list[dict[str, float]]) -> None:
        for history, steps, of_run in zip(self._histories, self._steps, metrics, strict=True):
            history.add(step, "train", **of_run)
            steps.append(of_run)

    def took(self, step: int, piece: Piece, seconds: float) -> None:
        self._seconds += seconds
        self._images += piece.images * len(self._runs)
        now = time.perf_counter()
        if step % self._steps_per_epoch and now - self._told_at > _TELL_EVERY:
            self._on_steps(StepReport(step, self._steps_per_epoch, seconds / piece.count))
            self._told_at = now

    def report(self, step: int, metrics: list[dict[str, float]], learning_rate: float) -> None:
        """Writes the histories; people are told at epochs and by the clock."""
        for history in self._histories:
            history.flush()

    def saved(self, step: int) -> None:
        """Tells nobody."""

    def evaluation(
        self, step: int, metrics: list[dict[str, float]], seconds: float, *, again: bool = False
    ) -> None:
        latest = []
        for run, history, steps, of_run in zip(
            self._runs, self._histories, self._steps, metrics, strict=True
        ):
            latest.append(_epoch(steps, of_run))
            if all(map(math.isfinite, of_run.values())):
                history.add(step, "eval", split=run.config["data"]["eval_split"], **of_run)
                history.flush()
            steps.clear()
        done = step // self._steps_per_epoch
        if self._images:
            # Of the steps of an epoch that was gone on with, only some were computed here.
            training = self._seconds * self._images_per_epoch / self._images
            whole = training + seconds
        else:  # All of them were taken before a stop.
            training = whole = (sum(run.seconds for run in self._runs) + seconds) / done
        self._on_epoch(
            EpochReport(
                epoch=done,
                seeds=tuple(run.config["seed"] for run in self._runs),
                latest=latest,
                images_per_second=self._images_per_epoch / training,
                minutes_left=(self._epochs - done) * whole / 60,
            )
        )
        self._seconds, self._images = 0.0, 0
        self._told_at = time.perf_counter()

    def close(self) -> None:
        for history in self._histories:
            history.flush()


def read_epochs(workdir: Path) -> list[Epoch]:
    """Returns the epochs that the history of a run has, each with its evaluation."""
    return _read(workdir)[0]


def _read(workdir: Path) -> tuple[list[Epoch], list[dict[str, float]]]:
    """The epochs of a history, and the steps after them."""
    epochs: list[Epoch] = []
    steps: list[dict[str, float]] = []
    for record in read_history(workdir):
        metrics = {k: v for k, v in record.items() if k not in ("step", "kind", "split")}
        if record["kind"] == "train":
            steps.append(metrics)
        else:
            epochs.append(_epoch(steps, metrics))
            steps = []
    return epochs, steps


def _epoch(steps: Sequence[dict[str, float]], test: dict[str, float]) -> Epoch:
    loss, top1 = (sum(step[name] for step in steps) / len(steps) for name in ("loss", "top1"))
    return Epoch(loss, top1, test)
