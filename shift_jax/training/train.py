"""Training on batches of the data pipeline, spread over the devices of all processes."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from shift_jax.config import to_dict
from shift_jax.tasks import Task, make_task, separate_runs
from shift_jax.training.checks import check_batches
from shift_jax.training.evaluation import collect
from shift_jax.training.loop import Loop
from shift_jax.training.mesh import make_mesh, to_devices
from shift_jax.training.metrics import RunLog
from shift_jax.training.optimizer import make_optimizer, make_schedule
from shift_jax.training.processes.collectives import any_process, check_same, is_first
from shift_jax.training.processes.stopping import StoppedError, StopRequest
from shift_jax.training.protocols import Piece
from shift_jax.training.runs.run import Run
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
      should_stop: called with the number of steps taken, but for the last; True saves and stops.

    Returns:
      The last evaluation's metrics, of the last run where the config asks for several.

    Raises:
      InputError: a bad config, dataset, model, batch size or workdir.
      DivergedError: a loss or gradient that is not finite; names the last good checkpoint.
      StoppedError: SIGTERM, SIGINT or `should_stop`, after saving.
    """
    # All are checked before the first begins, because a mistake in the last would surface days
    # later. The task may write into its config what it has drawn.
    runs = [
        BatchSteps(copy.deepcopy(of_run), Path(workdir) / folder, devices)
        for folder, of_run in separate_runs(config).items()
    ]
    while runs:
        run = runs.pop(0)
        metrics = _train(run, should_stop)
        if runs and any_process(run.stop.signal is not None):
            # It came after the last step and evaluation, when nothing was left to stop.
            raise StoppedError(run.total_steps, run.stop.signal)
    return metrics


def _train(steps: BatchSteps, should_stop: Callable[[int], bool]) -> dict[str, float]:
    config, workdir = steps.config, steps.workdir
    steps.template()  # Whatever else may be wrong with the network.
    check_same(
        computed_fields(to_dict(config)),
        "Process {process} has another config than process 0: start all processes with the same "
        "command.",
    )
    if is_first():
        claim_workdir(workdir, to_dict(config))
    with (
        steps.stop,
        workdir_lock(workdir) if is_first() else contextlib.nullcontext(),
        Run(workdir, to_dict(config), best_metric=steps.task.best_metric) as run,
    ):
        loop = Loop(
            steps,
            [run],
            steps.open_log,
            log_every_steps=config.log_every_steps,
            checkpoint_every_steps=config.checkpoint_every_steps,
            stop=steps.stop,
            should_stop=lambda step, seconds: step < steps.total_steps and should_stop(step),
        )
        (metrics,) = loop.run()
    return metrics


class BatchSteps:
    """The `shift_jax.training.protocols.Steps` of one run, each on one batch of the data pipeline.

    Args:
      config: the experiment.
      workdir: folder of the run.
      devices: what to train on; None is all devices of all processes.

    Raises:
      InputError: a bad config, dataset, model or batch size.
    """

    def __init__(
        self, config: ExperimentConfig, workdir: Path, devices: Sequence[jax.Device] | None
    ):
        self.config, self.workdir = config, workdir
        self.stop = StopRequest()
        self.task: Task = make_task(config)
        self._mesh = make_mesh(devices, config.fsdp)
        self.task.check()
        check_batches(self.task, self._mesh, config.accumulation_steps)
        per_epoch = self.task.steps_per_epoch
        self.total_steps = math.ceil(config.epochs * per_epoch)
        self.eval_every_steps = max(1, round(config.eval_every_epochs * per_epoch))
        self.eval_split = self.task.eval_split
        self._schedule = make_schedule(config.schedule, per_epoch, self.total_steps)
        self._optimizer = make_optimizer(config.optimizer, self._schedule, per_epoch)
        self._train_step = make_train_step(
            self.task,
            self._optimizer,
            self._mesh,
            accumulation_steps=config.accumulation_steps,
            ema_decay=config.ema_decay,
        )
        self._eval_step = make_eval_step(self.task, self._mesh)

    def template(self) -> TrainState:
        return self._template

    @cached_property
    def _template(self) -> TrainState:
        return self._state(abstract_state)

    def begin(self) -> TrainState:
        return self._state(init_state)

    def _state(self, make: Callable[..., TrainState]) -> TrainState:
        ema = bool(self.config.ema_decay)
        return make(self.task, self._optimizer, self.config.seed, self._mesh, ema=ema)

    def join(self, states: list[TrainState]) -> TrainState:
        (state,) = states
        return state

    def split(self, state: TrainState) -> list[TrainState]:
        return [state]

    @contextlib.contextmanager
    def open(self, start_step: int) -> Iterator[None]:
        with contextlib.closing(self.task.train_batches(start_step)) as host_batches:
            self._batches = to_devices(self.stop.mark(host_batches), self._mesh)
            yield

    def piece(self, step: int) -> Piece:
        ends_epoch = (step + 1) % self.task.steps_per_epoch == 0
        return Piece(1, self.task.batch_sizes[-1 if ends_epoch else 0])

    def compile(self, state: TrainState, step: int, piece: Piece) -> None:
        """Nothing: the first step of each batch size compiles."""

    def take(
        self, state: TrainState, step: int, piece: Piece
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        return self._train_step(state, next(self._batches))

    def learning_rate(self, step: int) -> float:
        return float(self._schedule(step))

    def evaluate(self, state: TrainState, step: int) -> list[dict[str, float]]:
        outputs = collect(
            self.task,
            state.evaluation_variables(),
            self.eval_split,
            self._eval_step,
            self._mesh,
            self.stop,
        )
        if is_first():
            picture = self.workdir / "pictures" / f"{step:08}.png"
            self.task.draw(self.eval_split, outputs, picture)
        return [self.task.summarize(self.eval_split, outputs)]

    def open_log(self, start_step: int, evaluate_again: bool) -> RunLog:
        """Returns the log of a run that goes on from a step, which tells where it is."""
        log = RunLog(
            self.workdir,
            start_step=start_step,
            total_steps=self.total_steps,
            steps_per_epoch=self.task.steps_per_epoch,
            eval_split=self.eval_split,
            fractions=self.task.fractions,
            tensorboard=self.config.tensorboard,
            evaluate_again=evaluate_again,
            silent=not is_first(),
        )
        if start_step == self.total_steps and not evaluate_again:
            log.say(
                f"{self.workdir} is trained to its last step, {start_step}; evaluating it again. "
                "Delete the folder to train anew."
            )
            return log
        parameters = sum(leaf.size for leaf in jax.tree.leaves(self.template().params))
        device = self._mesh.devices.flat[0].device_kind
        classes = ""
        if self.task.num_classes is not None:
            classes = f" in {self.task.num_classes:,} class{'es' * (self.task.num_classes != 1)}"
        doing = f"Resuming at step {start_step}" if start_step else "Training from the start"
        log.say(
            f"{doing}: {parameters:,} parameters, "
            f"{self.task.examples_per_epoch:,} examples{classes}, "
            f"{self.task.steps_per_epoch} steps an epoch, on {self._mesh.size} × {device}, "
            f"workdir {self.workdir}"
        )
        return log
