"""Trains the networks of a sweep one after the other, each with its run, row and messages."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import jax

from shift_jax.counting import count_parameters
from shift_jax.errors import InputError
from shift_jax.paper.sweep.jobs import (
    Job,
    check_dataset,
    count_network,
    estimated_minutes,
    jobs_left,
)
from shift_jax.paper.sweep.lines import epoch_line, say, steps_line
from shift_jax.paper.sweep.networks import NetworkSpec, recipe
from shift_jax.paper.sweep.provenance import commit, device_name
from shift_jax.paper.sweep.results_file import WRONG_PATH, Result, append_results, read_results
from shift_jax.training.loop import DivergedError
from shift_jax.training.on_device.arrays import Arrays
from shift_jax.training.on_device.training import TrainResult, train_on_device
from shift_jax.training.processes.stopping import StoppedError, StopRequest
from shift_jax.training.runs.workdir import read_config, workdir_lock


class StoppedBetweenError(StoppedError):
    """A signal arrived between two networks, when no step had to be saved."""

    def __init__(self, signal_number: int):
        super().__init__(0, signal_number)
        by = signal.Signals(signal_number).name
        self.args = (f"Stopped by {by}; everything is saved, and the same command resumes.",)


class Sweep:
    """Networks to train, and the files of their results.

    Args:
      dataset: "cifar10", "cifar100" or "digits".
      seeds: the seeds of each network, the most important network first.
      epochs: the length of the schedule.
      results: the CSV file.
      workdir: the folder of states and finished runs.

    Attributes:
      failed: why `run` gave up a network and seed.
    """

    def __init__(
        self,
        dataset: str,
        seeds: Mapping[NetworkSpec, Sequence[int]],
        epochs: int,
        results: Path,
        workdir: Path,
    ):
        self.dataset, self.seeds, self.epochs = dataset, seeds, epochs
        self.results, self.workdir = results, workdir / dataset
        self.failed: dict[tuple[str, int], str] = {}
        self._stacked = jax.devices()[0].platform != "cpu"
        self._device, self._commit = device_name(), commit()

    def check(self) -> None:
        """Raises InputError for rows of another dataset, or of other direction weights."""
        rows = self._rows()
        check_dataset(rows, self.dataset)
        for network, seeds in self.seeds.items():
            for seed in seeds if network.allocation else ():
                job = Job(network, (seed,), self.epochs)
                folder = self._folder(job, seed)
                if not job.is_done(rows) or not (folder / "config.json").exists():
                    continue
                weights = list(network.direction_weights or ())
                if read_config(folder)["model"]["direction_weights"] != weights:
                    raise InputError(
                        f"{network.name} has a row with other direction_weights (see {folder}): "
                        "give the allocation another name."
                    )

    def _make_files(self) -> None:
        """Creates the workdir and the file of results; InputError if they cannot be used."""
        try:
            self.workdir.mkdir(parents=True, exist_ok=True)
        except WRONG_PATH as error:
            raise InputError(
                f"The workdir {self.workdir} cannot be used ({error.strerror}): name another."
            ) from error
        append_results(self.results, [])

    def left(self) -> list[Job]:
        """Returns the jobs without a row, in order."""
        return jobs_left(self.seeds, self.epochs, self._rows(), stacked=self._stacked)

    def describe(self, job: Job) -> str:
        """Returns a line on a job without a row."""
        for seed in job.seeds:
            if why := self.failed.get((job.network.name, seed)):
                return f"{job}: {why}"
        minutes = self._estimate(job)
        about = "of unknown length" if minutes is None else f"about {minutes:.1f} min"
        return f"{job}: {'begun, ' * self._is_begun(job)}{about}"

    def run(self, arrays: Arrays, deadline: float = math.inf) -> list[Job]:
        """Trains the jobs without a row; returns those that still have none.

        Args:
          arrays: the dataset.
          deadline: a time of `time.monotonic`, up to which jobs train. A job that was begun earlier
            is resumed however long it may take.

        Raises:
          InputError: a file or folder that cannot be used.
          StoppedError: SIGTERM or Ctrl-C, after saving.
        """
        self._make_files()
        jobs, number = self.left(), 0
        with StopRequest() as stop:

            def should_stop(seconds: float) -> bool:
                return stop.signal is not None or time.monotonic() + seconds > deadline

            while jobs and stop.signal is None:
                minutes_left = (deadline - time.monotonic()) / 60
                if minutes_left <= 0:
                    break
                job, number = jobs.pop(0), number + 1
                minutes = self._estimate(job)
                if minutes is not None and minutes > minutes_left and not self._is_begun(job):
                    say(f"{job}: not begun, needs {minutes:.1f} min of {minutes_left:.1f} left")
                    continue
                try:
                    self._train(job, arrays, should_stop, f"{number} of {number + len(jobs)}")
                except StoppedError as stopped:
                    if stop.signal is not None:
                        raise _stopped(stopped.step, stop.signal) from None
                    say(f"{job}: saved at step {stopped.step}, out of time")
                    break
                except jax.errors.JaxRuntimeError as error:
                    if "RESOURCE_EXHAUSTED" not in str(error):
                        raise
                    if len(job.seeds) == 1:
                        self._fail(job, "left out. The device has too little memory.")
                    else:
                        say(f"{job}: too large for the device's memory, each trains alone")
                        jobs[:0] = [job._replace(seeds=(seed,)) for seed in job.seeds]
            if stop.signal is not None:
                raise _stopped(0, stop.signal)
        return self.left()

    def _train(
        self, job: Job, arrays: Arrays, should_stop: Callable[[float], bool], place: str
    ) -> None:
        with contextlib.ExitStack() as owned:
            try:
                for seed in job.seeds:
                    self._folder(job, seed).mkdir(parents=True, exist_ok=True)
                    owned.enter_context(workdir_lock(self._folder(job, seed)))
            except InputError as error:
                # The advice after the colon, another folder, would train it twice.
                say(f"{job}: left out. {str(error).split(': ')[0]}.")
                return
            # Another sweep may have just finished some of them.
            job = job.without_done(self._rows())
            if not job.seeds:
                return
            try:
                results = train_on_device(
                    recipe(self.dataset, job.network, job.epochs),
                    arrays,
                    {seed: self._folder(job, seed) for seed in job.seeds},
                    stacked=True,
                    commit=self._commit,
                    on_steps=lambda report: say(steps_line(job, place, report)),
                    on_epoch=lambda report: say(epoch_line(job, report)),
                    should_stop=should_stop,
                )
            except DivergedError as error:
                # Its advice would change the recipe.
                self._fail(job, f"given up. {str(error).split(': ')[0]}.")
            except InputError as error:
                self._fail(job, f"left out. {error}")
            else:
                self._finish(job, results)

    def _finish(self, job: Job, results: Sequence[TrainResult]) -> None:
        """Writes the rows of a job."""
        rows = [self._row(job.network, result) for result in results]
        # A sweep with another workdir may have trained the same network.
        new = job.without_done(self._rows()).seeds
        append_results(self.results, [row for row in rows if row.seed in new])
        for row in rows:
            say(
                f"{job.network.name} seed {row.seed}: done, test top-1 {row.last_top1:.2f} %, best "
                f"epoch {row.best_top1:.2f} %, {row.minutes:.1f} min"
                + ("" if row.seed in new else "; another sweep's row is there already")
            )
        for seed in set(job.seeds) - {row.seed for row in rows}:
            self._fail(job._replace(seeds=(seed,)), "given up. Its loss is no longer finite.")

    def _fail(self, job: Job, why: str) -> None:
        self.failed |= {(job.network.name, seed): why for seed in job.seeds}
        say(f"{job}: {why}")

    def _row(self, network: NetworkSpec, run: TrainResult) -> Result:
        accuracies = [100 * epoch.test["top1"] for epoch in run.epochs]
        return Result(
            model=network.model,
            expansion=network.expansion,
            reduction=network.reduction,
            allocation=network.allocation,
            seed=run.config["seed"],
            params=count_parameters({"params": run.state.params}),
            macs=count_network(network, self.dataset),
            last_top1=accuracies[-1],
            best_top1=max(accuracies),
            epochs=float(len(run.epochs)),
            minutes=run.minutes,
            device=self._device,
            commit="/".join(run.commits),
        )

    def _folder(self, job: Job, seed: int) -> Path:
        return self.workdir / job.folder / f"seed{seed}"

    def _rows(self) -> list[Result]:
        return read_results(self.results)

    def _estimate(self, job: Job) -> float | None:
        return estimated_minutes(job, self.dataset, self._rows(), self._device)

    def _is_begun(self, job: Job) -> bool:
        return any(any((self._folder(job, s) / "checkpoints").glob("*")) for s in job.seeds)


def _stopped(step: int, signal_number: int) -> StoppedError:
    return StoppedError(step, signal_number) if step else StoppedBetweenError(signal_number)
