"""One training from arrays in memory: its epochs, what it tells, and where it stops and goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from shift_jax.errors import InputError
from shift_jax.training.on_device.in_memory_files import load_state, save_state
from shift_jax.training.on_device.in_memory_steps import Computations
from shift_jax.training.processes.stopping import StoppedError
from shift_jax.training.runs.workdir import computed_fields
from shift_jax.training.step import TrainState

# Seconds between two saves, and between two calls of `on_steps`, within an epoch that is computed
# in many pieces.
_SAVE_EVERY = 120
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

    @property
    def is_finite(self) -> bool:
        """Whether both losses are."""
        return math.isfinite(self.loss) and math.isfinite(self.test["loss"])


class Trained(NamedTuple):
    """One seed, trained to the end.

    Attributes:
      config: plain JSON values, with this seed.
      state: after the last step.
      epochs: all of them, in order.
      minutes: compilation and evaluation included, of wall time on an accelerator and of this
        process's CPU time on a CPU, which other work beside it does not change; of seeds trained
        at the same time, each has an equal share.
      commits: of the code that trained it, the first one first.
    """

    config: dict
    state: TrainState
    epochs: list[Epoch]
    minutes: float
    commits: tuple[str, ...]


class Steps(NamedTuple):
    """What is told at the beginning, and then within long epochs.

    Attributes:
      taken: in all, those before a stop included.
      per_epoch: in each epoch.
      seconds_each: of the latest one; 0 at the beginning.
    """

    taken: int
    per_epoch: int
    seconds_each: float


class Progress(NamedTuple):
    """What is told after each epoch.

    Attributes:
      epoch: how many are done.
      seeds: that train at the same time.
      latest: this epoch of each of them.
      images_per_second: trained on, of all seeds together, evaluation and compilation not counted.
      minutes_left: to the end, by the pace of this epoch.
    """

    epoch: int
    seeds: tuple[int, ...]
    latest: list[Epoch]
    images_per_second: float
    minutes_left: float


class NotFiniteError(InputError):
    """The losses of all seeds that train at the same time are no longer finite."""


class Run:
    """The training of one stack of seeds.

    Args:
      compute: its pieces of work.
      config: plain JSON values.
      seeds: of the stack.
      path: where its state is saved and found again; None saves none.
      checksum: of the images.
      commit: of the code.
      on_steps, on_epoch, should_stop: see `shift_jax.training.on_device.in_memory.train`.

    Raises:
      InputError: a state of another training.
    """

    def __init__(
        self,
        compute: Computations,
        config: dict,
        seeds: tuple[int, ...],
        path: Path | None,
        *,
        checksum: int,
        commit: str,
        on_steps: Callable[[Steps], None],
        on_epoch: Callable[[Progress], None],
        should_stop: Callable[[float], bool],
    ):
        self.compute, self.config, self.seeds, self.path = compute, config, seeds, path
        self.on_steps, self.on_epoch, self.should_stop = on_steps, on_epoch, should_stop
        self.epochs = int(config["epochs"])
        self.steps = compute.task.steps_per_epoch
        self.identity = {
            "config": {k: v for k, v in computed_fields(config).items() if k != "seed"},
            "seeds": list(seeds),
            "images": checksum,
            "device": jax.devices()[0].device_kind,
        }
        self.saved_at = self.told_at = time.perf_counter()
        on_cpu = jax.devices()[0].platform == "cpu"
        self.clock = time.process_time if on_cpu else time.perf_counter
        self.began = self.clock()
        self.earlier_seconds = 0.0
        # Seconds that a piece of each kind, and the evaluation, took when it last was computed.
        self.lasted: dict[object, float] = {}
        self.step, self.done = 0, []  # Steps taken, and the epochs of all seeds.
        self.commit, self.commits = commit, []
        self.progressing = compute.begin(seeds)
        if path is not None:
            self._restore()

    def to_the_end(self) -> list[Trained]:
        """Returns the seeds whose losses stayed finite, trained; NotFiniteError if none did."""
        if len(self.done) < self.epochs:
            self.on_steps(Steps(self.step, self.steps, 0.0))
            if self.commit not in self.commits:
                self.commits.append(self.commit)
        while len(self.done) < self.epochs:
            self._epoch()
        minutes = self._seconds() / 60 / len(self.seeds)
        trained = []
        for i, state in enumerate(self.compute.of_seeds(self.progressing.state)):
            config, epochs = {**self.config, "seed": self.seeds[i]}, [each[i] for each in self.done]
            if all(epoch.is_finite for epoch in epochs):
                trained.append(Trained(config, state, epochs, minutes, tuple(self.commits)))
        return trained

    def _epoch(self) -> None:
        """The rest of the epoch that `step` is in, and its evaluation."""
        working, images = 0.0, 0
        first_step = len(self.done) * self.steps
        order = None
        for piece in self.compute.pieces:
            if first_step + piece.first < self.step:
                continue
            kind = (piece.count, piece.size)
            self._stop_if_asked(kind)
            if order is None:
                order = self.compute.order(self.progressing, len(self.done))
            self.compute.compile(piece, self.progressing, order)
            started = time.perf_counter()
            self.progressing = self.compute.run(piece, self.progressing, order)
            now = time.perf_counter()
            self.lasted[kind] = now - started
            self.step += piece.count
            working += now - started
            images += piece.count * piece.size * len(self.seeds)
            if self.step % self.steps and now - self.told_at > _TELL_EVERY:
                self.on_steps(Steps(self.step, self.steps, (now - started) / piece.count))
                self.told_at = now
            # Before the evaluation too, which may take a minute on a CPU.
            if now - self.saved_at > _SAVE_EVERY:
                self._save_within_epoch()
        self._stop_if_asked("evaluation")
        started = time.perf_counter()
        latest = self._evaluate()
        self.done.append(latest)
        self.progressing = self.progressing.reset()
        self._save()
        self.told_at = time.perf_counter()
        self.lasted["evaluation"] = self.told_at - started
        all_images = self.compute.task.examples_per_epoch * len(self.seeds)
        if images:
            # Of the steps of an epoch that was gone on with, only some were computed here.
            whole = working * all_images / images + self.lasted["evaluation"]
        else:  # All of them were taken before a stop.
            whole = working = self._seconds() / len(self.done)
            images = all_images
        self.on_epoch(
            Progress(
                epoch=len(self.done),
                seeds=self.seeds,
                latest=latest,
                images_per_second=images / working,
                minutes_left=(self.epochs - len(self.done)) * whole / 60,
            )
        )

    def _stop_if_asked(self, kind: object) -> None:
        if self.should_stop(self.lasted.get(kind, 0.0)):
            self._save_within_epoch()
            raise StoppedError(self.step, None)

    def _evaluate(self) -> list[Epoch]:
        means = jax.device_get({k: v / self.steps for k, v in self.progressing.sums.items()})
        latest = [
            Epoch(float(of_seed["loss"]), float(of_seed["top1"]), test)
            for of_seed, test in zip(
                self.compute.of_seeds(means), self.compute.evaluate(self.progressing), strict=True
            )
        ]
        # A seed whose loss is not finite takes nothing from the others of its stack.
        self._check_any([epoch.is_finite for epoch in latest])
        return latest

    def _check_any(self, finite: Sequence[bool]) -> None:
        if not any(finite):
            seeds = ", ".join(map(str, self.seeds))
            raise NotFiniteError(
                f"The loss of seed {seeds} is no longer finite in epoch {len(self.done) + 1}: "
                "lower schedule.learning_rate or set optimizer.clip_norm."
            )

    def _seconds(self) -> float:
        return self.earlier_seconds + self.clock() - self.began

    def _save_within_epoch(self) -> None:
        # What is not finite would be of no use, to go on from.
        sums = self.compute.of_seeds(jax.device_get(self.progressing.sums["loss"]))
        self._check_any([math.isfinite(loss) for loss in sums])
        self._save()

    def _save(self) -> None:
        if self.path is None:
            return
        facts = {
            "step": self.step,
            "epochs": self.done,
            "seconds": self._seconds(),
            "commits": self.commits,
        }
        save_state(self.path, self.progressing, {"identity": self.identity, **facts})
        self.saved_at = time.perf_counter()

    def _restore(self) -> None:
        found = load_state(self.path, self.identity, self.progressing)
        if found is None:
            return
        self.progressing, facts = found
        self.step, self.earlier_seconds = facts["step"], facts["seconds"]
        self.done = [[Epoch(*of_seed) for of_seed in epoch] for epoch in facts["epochs"]]
        self.commits = facts.get("commits", [])  # States of older versions have none.
