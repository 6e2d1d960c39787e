"""Trains the networks of a table of the paper, as many as time allows.

    python -m shift_jax.analysis.sweep --table=5 --dataset=cifar100 --budget_minutes=60

goes through Table 1, 2, 4 or 5 in the order of importance; Figures 4 and 5 show Table 5. Each
finished run is a row of --results, and what has a row is never trained again. The same command goes
on where it was stopped or killed or came to the end of its time: from the last saved epoch of the
network begun, on a CPU from its last two minutes.

--models=shiftresnet20-3,resnet20-module-1,shiftresnet20-3@cross,shiftresnet20-3@alloc.json: these
    in place of a table, in this order; "@" is an allocation, see shift_jax.analysis.allocation.
--dataset=cifar100: or cifar10, or digits to try it.
--data_dir=DIR: TFDS's folder; or --arrays=cifar100.npz, see shift_jax.training.arrays.
--seeds=0,1,2: default: three for networks of depth 20, one for others. On a GPU the seeds of a
    network train at the same time; on a CPU all networks come with their first seed first.
--epochs=164: fewer keep the recipe's proportions.
--budget_minutes=60: after which it saves and ends with status 0. A network that would take longer
    than what is left of it, as far as the rows of this device tell, is not begun. Default: no end.
--results=results/cifar100.csv: several sweeps may write to it at the same time.
--workdir=runs/sweep: what is saved; a finished run's folder in it is one that eval.py takes. Sweeps
    that share it do not train the same network.
--dry_run=true: only tells what it would train.

On a CPU under Linux GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment saves a tenth of the
time. Of several such commands at the same time, on a core or a GPU each, every one trains what no
other does: taskset -c 0 python -m …, taskset -c 1 python -m …
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from shift_jax.analysis.provenance import commit, device_name
from shift_jax.analysis.results_file import Result, append_results, read_results
from shift_jax.analysis.sweep_cells import (
    EPOCHS,
    Cell,
    default_seeds,
    parse_cells,
    recipe,
    table_cells,
)
from shift_jax.analysis.sweep_jobs import Job, count_cell, estimated_minutes, jobs_left
from shift_jax.errors import InputError, check_choice
from shift_jax.models.arguments import split_options
from shift_jax.training.arrays import DATASETS, Arrays, load_arrays
from shift_jax.training.in_memory import NotFiniteError, Progress, Trained, state_path, train
from shift_jax.training.in_memory_files import write_run
from shift_jax.training.stopping import StoppedError, StopRequest
from shift_jax.training.workdir import sole_owner

_OPTIONS = {
    "table": "5",
    "models": None,
    "dataset": "cifar100",
    "data_dir": None,
    "arrays": None,
    "seeds": None,
    "epochs": str(EPOCHS),
    "budget_minutes": None,
    "results": None,
    "workdir": "runs/sweep",
    "dry_run": "false",
}


class Sweep:
    """Networks to train, and where what they come to goes.

    Args:
      dataset: "cifar10", "cifar100" or "digits".
      seeds: of each network, the most important network first.
      epochs: of the schedule.
      results: the CSV file.
      workdir: of states and finished runs.
    """

    def __init__(
        self,
        dataset: str,
        seeds: Mapping[Cell, Sequence[int]],
        epochs: int,
        results: Path,
        workdir: Path,
    ):
        self.dataset, self.seeds, self.epochs = dataset, seeds, epochs
        self.results, self.workdir = results, workdir / dataset
        self._stacked = jax.devices()[0].platform != "cpu"
        self._device, self._commit = device_name(), commit()

    def left(self) -> list[Job]:
        """Returns the jobs without a row, in order."""
        return jobs_left(self.seeds, self.epochs, self._rows(), stacked=self._stacked)

    def describe(self, job: Job) -> str:
        """Returns a line on a job that is left."""
        minutes = self._estimate(job)
        about = "of unknown length" if minutes is None else f"about {minutes:.1f} min"
        return f"{job}: {'begun, ' * self._is_begun(job)}{about}"

    def run(self, arrays: Arrays, budget_minutes: float = math.inf) -> list[Job]:
        """Trains what is left; returns what is left then.

        Args:
          arrays: the dataset.
          budget_minutes: how long; a job that is begun already is gone on with in any case.

        Raises:
          InputError: a file or folder that cannot be used.
          StoppedError: SIGTERM or Ctrl-C, after saving.
        """
        deadline = time.monotonic() + 60 * budget_minutes
        with StopRequest() as stop:
            for job in self.left():
                minutes_left = (deadline - time.monotonic()) / 60
                if minutes_left <= 0 or stop.signal is not None:
                    break
                minutes = self._estimate(job)
                if minutes is not None and minutes > minutes_left and not self._is_begun(job):
                    _say(f"{job}: not begun, about {minutes:.1f} min and {minutes_left:.1f} left")
                    continue
                try:
                    self._train(
                        job,
                        arrays,
                        lambda seconds: (
                            stop.signal is not None or time.monotonic() + seconds > deadline
                        ),
                    )
                except StoppedError as stopped:
                    if stop.signal is not None:
                        raise StoppedError(stopped.step, stop.signal) from None
                    _say(f"{job}: saved at step {stopped.step}, at the end of the time")
                    break
                except NotFiniteError as error:
                    _say(f"{job}: given up. {error}")
            if stop.signal is not None:
                raise StoppedError(0, stop.signal)
        return self.left()

    def _train(self, job: Job, arrays: Arrays, should_stop) -> None:
        folder = self.workdir / job.folder
        with contextlib.ExitStack() as owned:
            try:
                for seed in job.seeds:
                    (folder / f"seed{seed}").mkdir(parents=True, exist_ok=True)
                    owned.enter_context(sole_owner(folder / f"seed{seed}"))
            except InputError as error:
                # Without the advice after the colon: another folder would train it twice.
                _say(f"{job}: left out. {str(error).split(': ')[0]}.")
                return
            if job.is_done(self._rows()):  # By another sweep that has just ended it.
                return
            config = recipe(self.dataset, job.cell, job.epochs)
            trained = train(
                config,
                arrays,
                seeds=job.seeds,
                stacked=True,
                folder=folder,
                on_epoch=lambda progress: _say(_line(job, progress)),
                should_stop=should_stop,
            )
            rows = [self._result(job.cell, run) for run in trained]
            # First the runs, so that what has a row has its folder.
            for run, row in zip(trained, rows, strict=True):
                write_run(folder / f"seed{row.seed}", run)
            append_results(self.results, rows)
            state_path(folder, job.seeds).unlink(missing_ok=True)
        for row in rows:
            _say(
                f"{job.cell.name} seed {row.seed}: done, test top-1 {row.last_top1:.2f} %, best "
                f"epoch {row.best_top1:.2f} %, {row.minutes:.1f} min"
            )

    def _result(self, cell: Cell, run: Trained) -> Result:
        accuracies = [100 * epoch.test["top1"] for epoch in run.epochs]
        return Result(
            model=cell.model,
            expansion=cell.expansion,
            reduction=cell.reduction,
            allocation=cell.allocation,
            seed=run.config["seed"],
            params=sum(leaf.size for leaf in jax.tree.leaves(run.state.params)),
            macs=count_cell(cell, self.dataset),
            last_top1=accuracies[-1],
            best_top1=max(accuracies),
            epochs=float(len(run.epochs)),
            minutes=run.minutes,
            device=self._device,
            commit=self._commit,
        )

    def _rows(self) -> list[Result]:
        return read_results(self.results)

    def _estimate(self, job: Job) -> float | None:
        return estimated_minutes(job, self.dataset, self._rows(), self._device)

    def _is_begun(self, job: Job) -> bool:
        return state_path(self.workdir / job.folder, job.seeds).exists()


def _line(job: Job, progress: Progress) -> str:
    def of_seeds(values, digits: int) -> str:
        return " / ".join(f"{value:.{digits}f}" for value in values)

    return (
        f"{job}: epoch {progress.epoch}/{job.epochs}, "
        f"loss {of_seeds((epoch.loss for epoch in progress.latest), 3)}, test top-1 "
        f"{of_seeds((100 * epoch.test['top1'] for epoch in progress.latest), 2)} %, "
        f"{progress.images_per_second:,.0f} images/s, {progress.minutes_left:.1f} min left"
    )


def _say(sentence: str) -> None:
    print(sentence, flush=True)


def main(arguments: Sequence[str]) -> None:
    """Runs the sweep that the command line describes."""
    words, options = split_options(arguments, _OPTIONS, __doc__)
    if words:
        raise InputError(f"{words[0]!r} is no flag: flags begin with --, as in --table=5.")
    dataset = options["dataset"]
    check_choice("dataset", dataset, DATASETS)
    check_choice("dry_run", options["dry_run"], ("true", "false"))
    if options["models"]:
        cells = parse_cells(options["models"].split(","))
    else:
        cells = table_cells(_number(options, "table", int))
    seeds = options["seeds"] and _seeds(options["seeds"])
    budget = _number(options, "budget_minutes", float) if options["budget_minutes"] else math.inf
    sweep = Sweep(
        dataset,
        {cell: seeds or default_seeds(cell) for cell in cells},
        _number(options, "epochs", int),
        Path(options["results"] or f"results/{dataset}.csv"),
        Path(options["workdir"]),
    )
    left = sweep.left()
    if left and options["dry_run"] == "false":
        if jax.config.jax_compilation_cache_dir is None:
            # Other seeds and later starts compile the same.
            jax.config.update("jax_compilation_cache_dir", str(sweep.workdir / "compiled"))
        arrays = load_arrays(dataset, path=options["arrays"], data_dir=options["data_dir"])
        left = sweep.run(arrays, budget)
    _say(f"{len(left)} left to train:" if left else f"All is trained: see {sweep.results}.")
    for job in left:
        _say(f"  {sweep.describe(job)}")


def _number(options: Mapping[str, Any], name: str, kind: type) -> float:
    try:
        number = kind(options[name])
    except ValueError:
        number = 0
    if not 0 < number < math.inf:
        example = _OPTIONS[name] or "60"
        raise InputError(
            f"--{name}={options[name]} is no number above 0: expected, say, --{name}={example}."
        )
    return number


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(map(int, text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**32:
        raise InputError(
            f"--seeds={text}: expected different integers from 0 to 2**32 - 1, as --seeds=0,1,2."
        )
    return seeds


if __name__ == "__main__":
    from functools import partial

    from shift_jax.training import cli

    sys.exit(cli.run(partial(main, sys.argv[1:]), argv=sys.argv[:1]))
