"""The checkpoints of one run, saved in the background; the newest and the best are kept.

`checkpoint_files` reads and writes the folder of each.
"""

import contextlib
import itertools
import math
import os
import re
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from absl import logging
from jax.experimental import multihost_utils

from shift_jax.errors import InputError, did_you_mean
from shift_jax.training.processes.collectives import any_process, check_same
from shift_jax.training.runs.checkpoint_files import (
    DamagedError,
    as_items,
    read_manifest,
    read_state,
    update_manifest,
)
from shift_jax.training.runs.selection import NewestAndBest


class Checkpoints(contextlib.AbstractContextManager):
    """The checkpoints of one run, in a directory that no other run may have open.

    In a run of several processes, all make the same calls. Use it as a context manager, or call
    `close`, to finish the last save.
    """

    def __init__(
        self,
        directory: str | PathLike,
        *,
        keep_latest: int = 2,
        keep_best: int = 1,
        best_metric: str = "top1",
    ):
        """Opens or creates `directory`, and removes half-written checkpoints of a killed run.

        Keeps the `keep_latest` newest (1 or more) and the `keep_best` best checkpoints. Among
        equal values of `best_metric` the newer checkpoint is the better one; one without metrics
        or with NaN is never among the best. Raises `InputError` for values out of range.
        """
        if keep_latest < 1 or keep_best < 0:
            raise InputError(
                "Checkpoints need keep_latest of at least 1 and keep_best of at least 0, but got "
                f"{keep_latest} and {keep_best}."
            )
        self._directory = Path(directory).absolute()
        self._best_metric = best_metric
        self._policy = NewestAndBest(keep_latest, keep_best)
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self._policy,
                cleanup_tmp_directories=True,
                lightweight_initialize=True,  # Otherwise damaged metadata could raise here.
            ),
        )
        for step in self._manager.all_steps():
            try:
                metrics = read_manifest(self._directory / str(step))["metrics"]
            except DamagedError:
                continue  # Unranked; `restore_latest` reports it if it matters.
            self._policy.values[step] = metrics.get(best_metric, math.nan)

    def save(
        self,
        step: int,
        state: Any,
        *,
        config: dict,
        metrics: dict[str, float] | None = None,
        training: dict[str, Any] | None = None,
    ) -> None:
        """Starts to save `state`, a pytree of arrays, which may be donated once this returns.

        The JSON-able dict `config` builds the model again; `training` holds other facts. Waits for
        the previous save, and raises its error if it failed. Raises `InputError` if a checkpoint of
        this or a later step exists, if `metrics` lack the one that ranks checkpoints, or if
        `config` is not JSON-able.
        """
        latest = self.latest_step
        if latest is not None and step <= latest:
            raise InputError(
                f"Step {step} cannot be saved in {self._directory}: step {latest} is there, and "
                "steps must increase; continue from that step or use another directory."
            )
        metrics = self._ranked(metrics) if metrics else {}
        items = as_items(state, config, metrics, training or {})
        self._policy.values[step] = metrics.get(self._best_metric, math.nan)
        with self._system_errors():
            self._manager.save(step, args=items, force=True)

    def add_metrics(
        self, step: int, metrics: dict[str, float], *, training: dict[str, Any] | None = None
    ) -> None:
        """Adds metrics, which rank it, to a checkpoint that was saved without; waits for its save.

        `training` replaces that of the save. Raises `InputError` if there is no such checkpoint,
        or if the metrics lack the one that ranks.
        """
        self.wait()
        metrics = self._ranked(metrics)
        if jax.process_index() == 0:
            entries = {} if training is None else {"training": training}
            update_manifest(self._directory / str(step), metrics=metrics, **entries)
        self._policy.values[step] = metrics[self._best_metric]

    def has_metrics(self, step: int) -> bool:
        """Whether a checkpoint has metrics; the same answer in all processes."""
        self.wait()
        return not any_process(not read_manifest(self._directory / str(step))["metrics"])

    def delete(self, step: int) -> None:
        """Removes a checkpoint."""
        self.wait()
        self._manager.delete(step)

    def steps(self) -> list[int]:
        """Returns the steps that are fully saved, in ascending order; waits for a running save."""
        self.wait()
        return sorted(self._manager.all_steps())

    @property
    def latest_step(self) -> int | None:
        """The newest step, or None without checkpoints; waits for a running save."""
        return max(self.steps(), default=None)

    @property
    def best_step(self) -> int | None:
        """The best step by the metric, or None if none has it; waits for a running save."""
        return next(iter(self._policy.best_first(self.steps())), None)

    def restore(self, abstract_state: Any, step: int) -> Any:
        """Returns the state saved at `step`.

        `abstract_state` is its pytree with a `jax.ShapeDtypeStruct` for every array, whose
        sharding may be over any devices. Raises `InputError` if there is no such step, if it is
        damaged, or if it holds another model.
        """
        self.wait()
        return read_state(self._directory / str(step), abstract_state)

    def restore_latest(
        self, abstract_state: Any, at_most: float = math.inf, *, begin_again: bool = False
    ) -> tuple[Any, int] | None:
        """Returns the newest readable state up to a step, and its step; None without checkpoints.

        Moves damaged newer ones to `damaged_checkpoints` beside the directory, with an absl
        warning for each, so that their steps can be saved again. If all fail, the files may not be
        the cause: it then moves nothing and raises `InputError`, unless told to `begin_again`.
        Raises `InputError` too if the newest intact checkpoint holds another model.
        """
        damaged: dict[int, str] = {}
        steps = self.steps()
        check_same(
            steps,
            f"Process {{process}} does not see the checkpoints in {self._directory} that process 0 "
            "sees: the workdir must be one folder that all hosts share.",
        )

        def intact(step: int, read: Callable[[Path], Any]) -> Any:
            """Returns what `read` does, or None if it finds damage in any process."""
            found, why = None, ""
            try:
                found = read(self._directory / str(step))
            except DamagedError as error:
                why = error.why
            if any_process(found is None):
                damaged[step] = why or "another process cannot read it"
                return None
            return found

        for step in reversed([step for step in steps if step <= at_most]):
            # The manifest first, because Orbax, which reads the rest, waits for all processes.
            if intact(step, read_manifest) is None:
                continue
            state = intact(step, lambda folder: read_state(folder, abstract_state))
            if state is None:
                continue
            if damaged:
                self._set_aside(damaged, step)
            return state, step
        if damaged and begin_again:
            self._set_aside(damaged, None)
        elif damaged:
            raise InputError(
                f"No checkpoint in {self._directory} is readable, the reasons by step being "
                f"{damaged}; repair one, or use another directory to start anew."
            )
        return None

    def wait(self) -> None:
        """Waits for the running save; raises its error once if it failed."""
        try:
            with self._system_errors():
                self._manager.wait_until_finished()
        except BaseException:
            self._manager.reload()  # Orbax has already dropped those to be removed after the save.
            raise

    def close(self) -> None:
        """Waits for the running save and ends the threads; raises the error of the save."""
        try:
            self.wait()
        finally:
            with self._system_errors():
                self._manager.close()

    def __exit__(self, *_) -> None:
        self.close()

    def _ranked(self, metrics: dict[str, float]) -> dict[str, float]:
        if self._best_metric not in metrics:
            raise InputError(
                f"Checkpoints are ranked by {self._best_metric!r}, which is not among the metrics "
                f"{', '.join(metrics)}.{did_you_mean(self._best_metric, metrics)}"
            )
        return {name: float(value) for name, value in metrics.items()}

    @contextlib.contextmanager
    def _system_errors(self):
        """Turns TensorStore's ValueErrors, of a full disk for example, back into OSErrors."""
        try:
            yield
        except OSError as error:
            if error.errno and not error.filename:
                error.filename = str(self._directory)
            raise
        except ValueError as error:
            found = re.search(r"os_error_code='(\d+)'", str(error))
            if not found:
                raise
            number = int(found[1])
            raise OSError(number, os.strerror(number), str(self._directory)) from error

    def _set_aside(self, damaged: dict[int, str], used: int | None) -> None:
        """Moves the damaged steps away, once every process has finished reading them."""
        parent = self._directory.parent / "damaged_checkpoints"
        for step, why in damaged.items() if jax.process_index() == 0 else ():
            names = itertools.chain([f"{step}"], (f"{step}-{n}" for n in itertools.count(2)))
            target = next(parent / name for name in names if not (parent / name).exists())
            parent.mkdir(exist_ok=True)
            (self._directory / str(step)).rename(target)
            instead = (
                "training begins again" if used is None else f"step {used} is restored instead"
            )
            logging.warning(
                "Checkpoint %d is damaged (%s) and was moved to %s; %s.", step, why, target, instead
            )
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("damaged checkpoints are set aside")
        self._manager.reload()
