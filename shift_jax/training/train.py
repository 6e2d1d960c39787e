"""Training on batches from the data pipeline, over the devices of all processes."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from shift_jax.config import to_dict, with_absolute_paths
from shift_jax.files import usable_path
from shift_jax.tasks import make_task, separate_runs
from shift_jax.training.checks import check_batches
from shift_jax.training.evaluation import collect
from shift_jax.training.initial import InitialWeights, load_initial, with_initial
from shift_jax.training.log import Log
from shift_jax.training.loop import Loop
from shift_jax.training.mesh import make_mesh, to_devices
from shift_jax.training.metrics import RunLog
from shift_jax.training.processes.collectives import any_process, check_same, is_first
from shift_jax.training.processes.stopping import StoppedError, StopRequest
from shift_jax.training.runs.run import Run
from shift_jax.training.runs.trained_data import is_recorded_data, record_data
from shift_jax.training.runs.workdir import claim_workdir, computed_fields, workdir_lock
from shift_jax.training.step import Metrics, TrainState, make_eval_step, make_train_step
from shift_jax.training.steps import Piece, Steps

if TYPE_CHECKING:
    from shift_jax.config import ExperimentConfig


def train(
    config: ExperimentConfig,
    workdir: str | Path,
    *,
    devices: Sequence[jax.Device] | None = None,  # pyright: ignore[reportInvalidTypeForm]
    should_stop: Callable[[int], bool] = lambda step: False,
    allow_changed_data: bool = False,
) -> dict[str, float]:
    """Trains to the end of the config's schedule, from the newest checkpoint if there is one.

    Args:
      config: the experiment.
      workdir: folder of config.json, history.jsonl, checkpoints/, pictures/ and tensorboard/; for a
        config with several styles, the folder of one such folder per style.
      devices: devices to train on; None uses all devices of all processes.
      should_stop: called with the number of steps taken, before each but the last evaluation too;
        True saves and stops.
      allow_changed_data: whether a run may resume on training data of the same classes that have
        become more.

    Returns:
      The metrics of the last evaluation, in the last run if the config asks for several.

    Raises:
      InputError: a bad config, dataset, model, batch size or workdir, or other training data than
        those that the run began with.
      DivergedError: a loss or gradient that is not finite; names the last good checkpoint.
      StoppedError: SIGTERM, SIGINT or `should_stop`, after saving.
    """
    config, workdir = with_absolute_paths(config), usable_path("workdir", workdir)
    # Checks all runs before the first one begins. A task may write what it draws into its config.
    runs = [
        _BatchSteps(copy.deepcopy(of_run), workdir / folder, devices)
        for folder, of_run in separate_runs(config).items()
    ]
    while runs:
        run = runs.pop(0)
        metrics = _train_run(run, should_stop, allow_changed_data)
        if runs and any_process(run.stop.signal is not None):
            # It came after the last evaluation, when nothing was left to stop.
            raise StoppedError(run.total_steps, run.stop.signal)
    return metrics


def _train_run(
    steps: _BatchSteps, should_stop: Callable[[int], bool], allow_changed_data: bool
) -> dict[str, float]:
    workdir, config = steps.workdir, to_dict(steps.config)
    _ = steps.template  # Fails here if the network cannot be built, before it claims the workdir.
    if not any((workdir / "checkpoints").glob("*")):
        _ = steps.initial  # Likewise for weights that do not fit it.
    check_same(
        computed_fields(config),
        "Process {process} has another config than process 0: start all processes with the same "
        "command.",
    )
    found = steps.task.training_data
    check_same(
        found._asdict(),
        "Process {process} reads other training data than process 0: copy the same files to all "
        "hosts.",
    )
    if is_first():
        same = is_recorded_data(workdir, found, allow_changed=allow_changed_data)
        claim_workdir(workdir, config, same_data=same)
    with (
        steps.stop,
        workdir_lock(workdir) if is_first() else contextlib.nullcontext(),
        Run(workdir, config, best_metric=steps.task.best_metric, data=found) as run,
    ):
        if is_first():
            record_data(workdir, found)
        loop = Loop(
            steps,
            [run],
            steps.open_log,
            stop=steps.stop,
            should_stop=lambda step, seconds: step < steps.total_steps and should_stop(step),
        )
        return loop.run()[0]


class _BatchSteps(Steps):
    """Steps of one run, each on one batch from the data pipeline.

    Args:
      config: the experiment.
      workdir: the run's folder.
      devices: devices to train on; None uses all devices of all processes.

    Raises:
      InputError: a bad config, dataset, model or batch size.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        workdir: Path,
        devices: Sequence[jax.Device] | None,  # pyright: ignore[reportInvalidTypeForm]
    ):
        task = make_task(config)
        mesh = make_mesh(devices, config.fsdp)
        task.check()
        check_batches(task, mesh, config.accumulation_steps)
        super().__init__(config, task, mesh, [config.seed])
        self.workdir, self.stop = workdir, StopRequest()
        self._train_step = self._make_step(make_train_step)
        self._eval_step = make_eval_step(task, mesh)

    @cached_property
    def initial(self) -> InitialWeights | None:
        """The weights to begin from, if the config names some."""
        if not self.config.init_from:
            return None
        names = self.task.training_data.class_names
        return load_initial(self.config, self.template, names)

    def begin(self) -> TrainState:
        state = super().begin()
        return state if self.initial is None else with_initial(state, self.initial)

    @contextlib.contextmanager
    def open(self, start_step: int) -> Iterator[None]:
        with contextlib.closing(self.task.train_batches(start_step)) as host_batches:
            self._batches = to_devices(self.stop.mark(host_batches), self.mesh)
            yield

    def piece(self, step: int) -> Piece:
        ends_epoch = (step + 1) % self.task.steps_per_epoch == 0
        return Piece(1, self.task.batch_sizes[-1 if ends_epoch else 0])

    def take(self, state: TrainState, step: int, piece: Piece) -> tuple[TrainState, Metrics]:
        return self._train_step(state, next(self._batches))

    def evaluate(self, state: TrainState, step: int) -> list[dict[str, float]]:
        split = self.task.eval_split
        variables = state.evaluation_variables()
        outputs = collect(self.task, variables, split, self._eval_step, self.mesh, self.stop)
        if is_first():
            self.task.draw(split, outputs, self.workdir / "pictures" / f"{step:08}.png")
        return [self.task.summarize(split, outputs)]

    def open_log(self, start_step: int, evaluate_again: bool) -> Log:
        if not is_first():
            return Log()
        task = self.task
        log = RunLog(
            self.workdir,
            start_step=start_step,
            total_steps=self.total_steps,
            steps_per_epoch=task.steps_per_epoch,
            eval_split=task.eval_split,
            fractions=task.fractions,
            tensorboard=self.config.tensorboard,
            evaluate_again=evaluate_again,
        )
        if start_step == self.total_steps and not evaluate_again:
            log.say(
                f"{self.workdir} is trained to its last step, {start_step}; evaluating it again. "
                "Delete the folder to train anew."
            )
            return log
        parameters = sum(leaf.size for leaf in jax.tree.leaves(self.template.params))
        classes = ""
        if task.num_classes is not None:
            classes = f" in {task.num_classes:,} class{'es' * (task.num_classes != 1)}"
        doing = f"Resuming at step {start_step}" if start_step else "Training from the start"
        if not start_step and self.initial is not None:
            new = "" if self.initial.has_classifier else ", with a new classifier"
            doing = f"Training from {self.config.init_from}{new}"
        log.say(
            f"{doing}: {parameters:,} parameters, {task.examples_per_epoch:,} examples{classes}, "
            f"{task.steps_per_epoch} steps an epoch, on {self.mesh.size} × "
            f"{self.mesh.devices.flat[0].device_kind}, workdir {self.workdir}"
        )
        return log
