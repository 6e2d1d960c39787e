"""A sweep trains networks of the paper one after the other, as time allows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import jax

from shift_jax.errors import InputError
from shift_jax.paper.sweep.lines import say
from shift_jax.paper.sweep.networks import NetworkSpec, default_seeds
from shift_jax.paper.sweep.runner import Sweep
from shift_jax.training.on_device.arrays import load_arrays


def run_sweep(
    dataset: str,
    networks: Sequence[NetworkSpec],
    *,
    seeds: Sequence[int] | None,
    epochs: int,
    budget_minutes: float,
    results: Path,
    workdir: Path,
    arrays: Path | None = None,
    data_dir: Path | None = None,
    dry_run: bool = False,
) -> None:
    """Trains the networks without a row in the results file, and prints what is left.

    Args:
      dataset: one of `shift_jax.training.on_device.arrays.DATASETS`.
      networks: the networks, the most important first.
      seeds: the seeds of each network; None for `default_seeds`.
      epochs: the length of the schedule.
      budget_minutes: the time after which the sweep saves and ends.
      results: the CSV file.
      workdir: the folder of states and finished runs.
      arrays, data_dir: `path` and `data_dir` of `load_arrays`.
      dry_run: whether to train nothing.

    Raises:
      InputError: a file that cannot be used, or a network that could not be trained.
      StoppedError: SIGTERM or Ctrl-C, after saving.
    """
    deadline = time.monotonic() + 60 * budget_minutes
    sweep = Sweep(
        dataset,
        {network: seeds or default_seeds(network) for network in networks},
        epochs,
        results,
        workdir,
    )
    sweep.check()
    left = sweep.left()
    if left and not dry_run:
        if jax.config.values["jax_compilation_cache_dir"] is None:
            # Other seeds and later starts compile the same.
            jax.config.update("jax_compilation_cache_dir", str(sweep.workdir / "compiled"))
        began = time.perf_counter()
        loaded = load_arrays(dataset, path=arrays, data_dir=data_dir)
        say(
            f"{dataset}: {len(loaded.train_labels):,} training and {len(loaded.test_labels):,} "
            f"test images read in {time.perf_counter() - began:.0f} s."
        )
        left = sweep.run(loaded, deadline)
    say(f"{len(left)} left to train:" if left else f"All is trained: see {sweep.results}.")
    for job in left:
        say(f"  {sweep.describe(job)}")
    if sweep.failed:
        raise InputError(f"{len(sweep.failed)} could not be trained: the lines above tell why.")
