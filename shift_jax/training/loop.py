"""The one training loop, for every task."""

from __future__ import annotations

import collections
import contextlib
import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from shift_jax.config import to_dict
from shift_jax.errors import InputError
from shift_jax.tasks import make_task, separate_runs
from shift_jax.training.checks import check_batches
from shift_jax.training.evaluation import EvaluationStoppedError, collect
from shift_jax.training.mesh import make_mesh, to_devices
from shift_jax.training.metrics import Pace, RunLog
from shift_jax.training.optimizer import make_optimizer, make_schedule
from shift_jax.training.processes.collectives import check_same, is_first
from shift_jax.training.processes.stopping import StoppedError, StopRequest
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.runs.workdir import claim_workdir, computed_fields, workdir_lock
from shift_jax.training.step import (
    TrainState,
    abstract_state,
    init_state,
    make_eval_step,
    make_train_step,
)

if TYPE_CHECKING:
    from shift_jax.config import ExperimentConfig

# Steps whose metrics may still be on their way while the next ones are dispatched.
_STEPS_IN_FLIGHT = 2


class DivergedError(InputError):
    """The loss or the gradient is no longer finite."""


def train(
    config: ExperimentConfig,
    workdir: str | Path,
    *,
    devices: Sequence[jax.Device] | None = None,
    should_stop: Callable[[int], bool] = lambda step: False,
) -> dict[str, float]:
    """Trains to the end of the config's schedule, from the newest checkpoint if there is one.

    Args:
      config: the experiment.
      workdir: folder of config.json, history.jsonl, checkpoints/, pictures/ and tensorboard/; of
        a config with several styles, of such a folder for each.
      devices: what to train on; None is all devices of all processes.
      should_stop: called with the number of steps taken; True saves and stops.

    Returns:
      The last evaluation's metrics, of the last run where the config asks for several.

    Raises:
      InputError: a bad config, dataset, model, batch size or workdir.
      DivergedError: a loss or gradient that is not finite; names the last good checkpoint.
      StoppedError: SIGTERM, SIGINT or `should_stop`, after saving.
    """
    runs = separate_runs(config).items()
    # All of them before the first begins: a mistake in the last would be told days later.
    trainers = [_Trainer(run, Path(workdir) / folder, devices) for folder, run in runs]
    while trainers:
        metrics = trainers.pop(0).run(should_stop)
    return metrics


class _Trainer:
    """One run: what `train` sets up, and the loop over its steps."""

    def __init__(
        self, config: ExperimentConfig, workdir: Path, devices: Sequence[jax.Device] | None
    ):
        config = copy.deepcopy(config)  # The task may write into it what it has drawn.
        self.config = config
        self.workdir = workdir
        self.task = make_task(config)
        self.mesh = make_mesh(devices, config.fsdp)
        self.task.check()
        check_batches(self.task, self.mesh, config.accumulation_steps)
        steps_per_epoch = self.task.steps_per_epoch
        self.total_steps = math.ceil(config.epochs * steps_per_epoch)
        self.eval_every_steps = max(1, round(config.eval_every_epochs * steps_per_epoch))
        self.schedule = make_schedule(config.schedule, steps_per_epoch, self.total_steps)
        self.optimizer = make_optimizer(config.optimizer, self.schedule, steps_per_epoch)
        self.train_step = make_train_step(
            self.task,
            self.optimizer,
            self.mesh,
            accumulation_steps=config.accumulation_steps,
            ema_decay=config.ema_decay,
        )
        self.eval_step = make_eval_step(self.task, self.mesh)
        self.stop = StopRequest()

    def run(self, should_stop: Callable[[int], bool]) -> dict[str, float]:
        setup = (self.task, self.optimizer, self.config.seed, self.mesh)
        template = abstract_state(*setup, ema=bool(self.config.ema_decay))
        # Only now, when all that can be checked is: a mistake shall not claim the folder.
        check_same(
            computed_fields(to_dict(self.config)),
            "Process {process} has another config than process 0: start all processes with the "
            "same command.",
        )
        if is_first():
            claim_workdir(self.workdir, to_dict(self.config))
        with (
            self.stop,
            workdir_lock(self.workdir) if is_first() else contextlib.nullcontext(),
            Checkpoints(
                self.workdir / "checkpoints",
                keep_latest=self.config.keep_latest,
                keep_best=self.config.keep_best,
                best_metric=self.task.best_metric,
            ) as checkpoints,
        ):
            restored = checkpoints.restore_latest(template)
            if restored:
                state, start_step = restored
            else:
                state = init_state(*setup, ema=bool(self.config.ema_decay))
                start_step = 0
            if start_step > self.total_steps:
                raise InputError(
                    f"{self.workdir} is trained to step {start_step}, beyond this run's "
                    f"{self.total_steps} steps: its dataset was larger; choose another --workdir."
                )
            evaluating = self._is_evaluated(start_step) and not checkpoints.has_metrics(start_step)
            log = self._open_log(start_step, evaluating)
            try:
                log.say(self._opening(template, start_step, evaluating))
                if evaluating:
                    metrics = self._evaluate_saved(start_step, state, checkpoints, log)
                elif start_step == self.total_steps:
                    metrics = self._evaluate(start_step, state)
                    log.show_evaluation(start_step, self.task.eval_split, metrics)
                if start_step == self.total_steps:
                    return metrics
                return self._steps(state, start_step, checkpoints, log, should_stop)
            except DivergedError as error:
                last = checkpoints.latest_step
                kept = "no checkpoint was saved before"
                if last is not None:
                    kept = f"the last good checkpoint is {self.workdir / 'checkpoints' / str(last)}"
                raise DivergedError(
                    f"{error}: training stopped, {kept}; lower schedule.learning_rate or set "
                    "optimizer.clip_norm, in a new workdir."
                ) from None
            finally:
                log.close()

    def _steps(
        self,
        state: TrainState,
        start_step: int,
        checkpoints: Checkpoints,
        log: RunLog,
        should_stop: Callable[[int], bool],
    ) -> dict[str, float]:
        buffer = MetricsBuffer(log, self.stop)
        pace = Pace()
        with contextlib.closing(self.task.train_batches(start_step)) as host_batches:
            batches = to_devices(self.stop.mark(host_batches), self.mesh)
            for step in range(start_step + 1, self.total_steps + 1):
                # A signal may have come while all this was being made or restored.
                if step == start_step + 1 and self.stop.is_agreed:
                    raise StoppedError(start_step, self.stop.signal)
                batch = next(batches)
                state, step_metrics = self.train_step(state, batch)
                buffer.push(step, step_metrics)
                pace.step(images=len(next(iter(batch.values()))))
                stopping = self.stop.is_agreed or should_stop(step)
                evaluating = self._is_evaluated(step)
                saving = evaluating or stopping or self._is_saved(step)
                if saving or step % self.config.log_every_steps == 0:
                    log.report(
                        step,
                        buffer.means()
                        | {"learning_rate": float(self.schedule(step - 1))}
                        | pace.report(steps_left=self.total_steps - step),
                    )
                if saving:
                    # Before the evaluation, which may be long: nothing shall be lost by it.
                    checkpoints.save(step, state, config=to_dict(self.config))
                    pace.pause()
                if stopping and not (evaluating and step == self.total_steps):
                    checkpoints.wait()
                    raise StoppedError(step, self.stop.signal)
                if evaluating:
                    metrics = self._evaluate_saved(step, state, checkpoints, log)
        return metrics

    def _is_evaluated(self, step: int) -> bool:
        return step == self.total_steps or (step > 0 and step % self.eval_every_steps == 0)

    def _is_saved(self, step: int) -> bool:
        every = self.config.checkpoint_every_steps
        return every > 0 and step % every == 0

    def _evaluate_saved(
        self, step: int, state: TrainState, checkpoints: Checkpoints, log: RunLog
    ) -> dict[str, float]:
        """Evaluates what is saved at `step` and completes its checkpoint by the metrics.

        A run that is stopped or killed before that evaluates again when it resumes.
        """
        metrics = self._evaluate(step, state)
        try:
            _check_finite(metrics, f"of {self.task.eval_split} after step {step}")
        except DivergedError:
            checkpoints.delete(step)
            raise
        log.evaluation(step, self.task.eval_split, metrics)
        checkpoints.add_metrics(step, metrics)
        return metrics

    def _evaluate(self, step: int, state: TrainState) -> dict[str, float]:
        try:
            outputs = collect(
                self.task,
                state.evaluation_variables(),
                self.task.eval_split,
                self.eval_step,
                self.mesh,
                self.stop,
            )
        except EvaluationStoppedError:
            raise StoppedError(step, self.stop.signal) from None
        if is_first():
            picture = self.workdir / "pictures" / f"{step:08}.png"
            self.task.draw(self.task.eval_split, outputs, picture)
        return self.task.summarize(self.task.eval_split, outputs)

    def _open_log(self, start_step: int, evaluate_again: bool) -> RunLog:
        return RunLog(
            self.workdir,
            start_step=start_step,
            total_steps=self.total_steps,
            steps_per_epoch=self.task.steps_per_epoch,
            fractions=self.task.fractions,
            tensorboard=self.config.tensorboard,
            evaluate_again=evaluate_again,
            silent=not is_first(),
        )

    def _opening(self, template: TrainState, start_step: int, evaluating: bool) -> str:
        if start_step == self.total_steps and not evaluating:
            return (
                f"{self.workdir} is trained to its last step, {start_step}; evaluating it again. "
                "Delete the folder to train anew."
            )
        parameters = sum(leaf.size for leaf in jax.tree.leaves(template.params))
        device = self.mesh.devices.flat[0].device_kind
        classes = ""
        if self.task.num_classes is not None:
            classes = f" in {self.task.num_classes:,} class{'es' * (self.task.num_classes != 1)}"
        doing = f"Resuming at step {start_step}" if start_step else "Training from the start"
        return (
            f"{doing}: {parameters:,} parameters, "
            f"{self.task.examples_per_epoch:,} examples{classes}, "
            f"{self.task.steps_per_epoch} steps an epoch, on {self.mesh.size} × {device}, "
            f"workdir {self.workdir}"
        )


class MetricsBuffer:
    """Collects the steps' metrics a little late, and stops the run when one is not finite."""

    def __init__(self, log: RunLog, stop: StopRequest):
        self._log = log
        self._stop = stop
        self._coming: collections.deque = collections.deque()
        self._since_means: list[dict[str, float]] = []

    def push(self, step: int, metrics: dict[str, jax.Array]) -> None:
        self._coming.append((step, metrics))
        if len(self._coming) > _STEPS_IN_FLIGHT:
            self._take()

    def means(self) -> dict[str, float]:
        """Waits for all steps and returns the means over those since the last call."""
        while self._coming:
            self._take()
        steps, self._since_means = self._since_means, []
        keys = sorted(steps[0], key=lambda key: (key != "loss", key))
        return {key: sum(step[key] for step in steps) / len(steps) for key in keys}

    def _take(self) -> None:
        step, metrics = self._coming.popleft()
        metrics = self._stop.listen(metrics)
        values = {key: float(value) for key, value in metrics.items()}
        self._log.train_step(step, values)
        self._since_means.append(values)
        _check_finite(values, f"at step {step}")


def _check_finite(metrics: dict[str, float], where: str) -> None:
    for key, value in metrics.items():
        if not math.isfinite(value):
            raise DivergedError(f"The {key.replace('_', ' ')} {where} is {value}")
