"""Training from arrays that lie on the device: for small images and small networks.

Without Grain and TensorFlow, whose work for each step takes longer than a small network does on a
GPU. The network, the loss, the optimizer and the update are those of `shift_jax.training.loop`; the
order of the images, the crops and the flips are drawn on the device, so that they are others than
the loop's. As there they are pure functions of (seed, step).
"""

from __future__ import annotations

import copy
import math
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax

from shift_jax.errors import InputError
from shift_jax.training.arrays import Arrays
from shift_jax.training.in_memory_files import load_state, save_state
from shift_jax.training.in_memory_steps import Computations
from shift_jax.training.step import TrainState
from shift_jax.training.stopping import StoppedError
from shift_jax.training.workdir import as_dict, computed_fields

if TYPE_CHECKING:
    from ml_collections import ConfigDict

# Seconds between two saves within an epoch that is computed in many pieces.
_SAVE_EVERY = 120


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


class Trained(NamedTuple):
    """One seed, trained to the end.

    Attributes:
      config: plain JSON values, with this seed.
      state: after the last step.
      epochs: all of them, in order.
      minutes: of wall time, compilation and evaluation included; of seeds trained at the same
        time, each has an equal share.
    """

    config: dict
    state: TrainState
    epochs: list[Epoch]
    minutes: float


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
    """A loss is no longer finite."""


def train(
    config: ConfigDict,
    arrays: Arrays,
    *,
    seeds: Sequence[int] | None = None,
    stacked: bool | None = None,
    folder: str | Path | None = None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[float], bool] = lambda seconds: False,
) -> list[Trained]:
    """Trains a network to the end of its config's schedule, with each of the seeds.

    Args:
      config: an experiment as train.py takes, with the fields of `configs/common.py`: whole epochs
        and an evaluation after each. Fields that change only how a run is carried out have no
        effect here; nor do data.name and data.data_dir.
      arrays: what it is trained and tested on.
      seeds: of initialisation, order and augmentation; None is `config.seed` alone.
      stacked: whether the seeds train at the same time, by vmap, which changes nothing but the
        rounding; None is True on GPUs and TPUs, which one small network leaves idle, and False on
        a CPU.
      folder: where the state is saved after each epoch, and found again; None saves none.
      on_epoch: called after each epoch.
      should_stop: called before each piece of work, which is one step on a CPU and an epoch
        elsewhere, with the seconds that the last one took; True saves and stops.

    Returns:
      One `Trained` for each seed.

    Raises:
      InputError: a config that asks for what this does not do, or a folder of another config.
      NotFiniteError: a loss that is no longer finite.
      StoppedError: `should_stop` said so.
    """
    seeds = (config.seed,) if seeds is None else tuple(seeds)
    _check_seeds(seeds)
    on_cpu = jax.devices()[0].platform == "cpu"
    if stacked is None:
        stacked = not on_cpu
    stacks = [seeds] if stacked else [(seed,) for seed in seeds]
    config = copy.deepcopy(config)
    compute = Computations(
        *(config, arrays, jax.devices()[0]),
        num_seeds=len(stacks[0]),
        # A CPU's steps are long enough to be called one by one, and a stop need not wait long.
        whole_epochs=not on_cpu,
    )
    trained = []
    for stack in stacks:
        path = None if folder is None else state_path(folder, stack)
        run = _Run(compute, as_dict(config), stack, path, _checksum(arrays))
        trained += run.to_the_end(on_epoch, should_stop)
    return trained


def state_path(folder: str | Path, seeds: Sequence[int]) -> Path:
    """Returns where `train` keeps the state of seeds that train at the same time."""
    return Path(folder) / f"seeds-{'-'.join(map(str, seeds))}.npz"


class _Run:
    """The training of one stack of seeds, with its state saved in `path` unless that is None."""

    def __init__(
        self,
        compute: Computations,
        config: dict,
        seeds: tuple[int, ...],
        path: Path | None,
        checksum: int,
    ):
        self.compute, self.config, self.seeds, self.path = compute, config, seeds, path
        self.epochs = int(config["epochs"])
        self.steps = compute.task.steps_per_epoch
        self.identity = {
            "config": {k: v for k, v in computed_fields(config).items() if k != "seed"},
            "seeds": list(seeds),
            "images": checksum,
            "device": jax.devices()[0].device_kind,
        }
        self.began = self.saved_at = time.perf_counter()
        self.earlier_seconds = self.last_seconds = 0.0
        self.step, self.done = 0, []  # Steps taken, and the epochs of all seeds.
        self.progressing = compute.begin(seeds)
        if path is not None:
            self._restore()

    def to_the_end(self, on_epoch, should_stop) -> list[Trained]:
        while len(self.done) < self.epochs:
            self._epoch(on_epoch, should_stop)
        minutes = self._seconds() / 60 / len(self.seeds)
        return [
            Trained(
                {**self.config, "seed": seed}, state, [epoch[i] for epoch in self.done], minutes
            )
            for i, (seed, state) in enumerate(
                zip(self.seeds, self.compute.of_seeds(self.progressing.state), strict=True)
            )
        ]

    def _epoch(self, on_epoch, should_stop) -> None:
        """The rest of the epoch that `step` is in, and its evaluation."""
        began, compiling, working, images = time.perf_counter(), 0.0, 0.0, 0
        first_step = len(self.done) * self.steps
        order = None
        for piece in self.compute.pieces:
            if first_step + piece.first < self.step:
                continue
            if should_stop(self.last_seconds):
                self._save()
                raise StoppedError(self.step, None)
            if order is None:
                order = self.compute.order(self.progressing, len(self.done))
            started = time.perf_counter()
            self.compute.compile(piece, self.progressing, order)
            ready = time.perf_counter()
            self.progressing = self.compute.run(piece, self.progressing, order)
            self.step += piece.count
            self.last_seconds = time.perf_counter() - ready
            compiling += ready - started
            working += self.last_seconds
            images += piece.count * piece.size * len(self.seeds)
            in_between = self.step % self.steps
            if in_between and time.perf_counter() - self.saved_at > _SAVE_EVERY:
                self._save()
        latest = self._evaluate()
        self.done.append(latest)
        self.progressing = self.progressing.reset()
        self._save()
        # By the part of the epoch that was computed here.
        whole = (time.perf_counter() - began - compiling) * len(self.seeds)
        whole *= self.compute.task.examples_per_epoch / images
        on_epoch(
            Progress(
                epoch=len(self.done),
                seeds=self.seeds,
                latest=latest,
                images_per_second=images / working,
                minutes_left=(self.epochs - len(self.done)) * whole / 60,
            )
        )

    def _evaluate(self) -> list[Epoch]:
        means = jax.device_get({k: v / self.steps for k, v in self.progressing.sums.items()})
        latest = [
            Epoch(float(of_seed["loss"]), float(of_seed["top1"]), test)
            for of_seed, test in zip(
                self.compute.of_seeds(means), self.compute.evaluate(self.progressing), strict=True
            )
        ]
        for seed, epoch in zip(self.seeds, latest, strict=True):
            losses = (epoch.loss, epoch.test["loss"])
            if not all(map(math.isfinite, losses)):
                raise NotFiniteError(
                    f"The training and test losses of seed {seed} in epoch {len(self.done) + 1} "
                    f"are {losses[0]} and {losses[1]}: lower schedule.learning_rate or set "
                    "optimizer.clip_norm."
                )
        return latest

    def _seconds(self) -> float:
        return self.earlier_seconds + time.perf_counter() - self.began

    def _save(self) -> None:
        if self.path is None:
            return
        facts = {"step": self.step, "epochs": self.done, "seconds": self._seconds()}
        save_state(self.path, self.progressing, {"identity": self.identity, **facts})
        self.saved_at = time.perf_counter()

    def _restore(self) -> None:
        found = load_state(self.path, self.identity, self.progressing)
        if found is None:
            return
        self.progressing, facts = found
        self.step, self.earlier_seconds = facts["step"], facts["seconds"]
        self.done = [[Epoch(*of_seed) for of_seed in epoch] for epoch in facts["epochs"]]


def _checksum(arrays: Arrays) -> int:
    # The labels tell datasets apart, and the images are a thousand times as many bytes.
    return zlib.crc32(arrays.test_labels.tobytes(), zlib.crc32(arrays.train_labels.tobytes()))


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= s < 2**32 for s in seeds):
        raise InputError(
            f"seeds is {tuple(seeds)}, expected different integers from 0 to 2**32 - 1."
        )
