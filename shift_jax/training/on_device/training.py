"""Training of small networks on small images that lie on the device.

It does without Grain and TensorFlow, whose work for a step takes longer than a small network needs
on a GPU. The network, the loss, the update and the loop are those of `shift_jax.training.train`.
The order of the images, the crops and the flips are drawn on the device and so differ from those
there, but they too are pure functions of (seed, step).
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax

from shift_jax.config import to_dict
from shift_jax.errors import InputError
from shift_jax.training.loop import DivergedError, Loop
from shift_jax.training.on_device.arrays import Arrays
from shift_jax.training.on_device.log import Epoch, EpochReport, SeedsLog, StepReport, read_epochs
from shift_jax.training.on_device.steps import DeviceSteps
from shift_jax.training.runs.run import Run
from shift_jax.training.runs.workdir import claim_workdir
from shift_jax.training.step import TrainState

if TYPE_CHECKING:
    from shift_jax.config import ClassificationConfig

# Seconds between two checkpoints, within an epoch too.
_SAVE_EVERY = 120


class TrainResult(NamedTuple):
    """The results of one seed.

    Attributes:
      config: plain JSON values, with this seed.
      state: the state after the last step.
      epochs: the results of all epochs, in order.
      minutes: duration, including compilation and evaluation; CPU time of the process on a CPU,
        where other processes take wall time away, and wall time on an accelerator. Seeds side by
        side share it equally.
      commits: commits of the code that trained it, the first one first.
    """

    config: dict
    state: TrainState
    epochs: list[Epoch]
    minutes: float
    commits: tuple[str, ...]


def train_on_device(
    config: ClassificationConfig,
    arrays: Arrays,
    folders: Mapping[int, Path],
    *,
    stacked: bool | None = None,
    commit: str = "",
    on_steps: Callable[[StepReport], None] = lambda report: None,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    should_stop: Callable[[float], bool] = lambda seconds: False,
) -> list[TrainResult]:
    """Trains a network to the end of its config's schedule, once for each of several seeds.

    Args:
      config: an experiment for `shift_jax.training.train`, of whole epochs with an evaluation after
        each. The settings of the dataset's files, of workers and of TensorBoard have no effect.
      arrays: the dataset.
      folders: the workdir of each seed, which no other process may write to. A run resumes from its
        newest checkpoint; a finished one is only read.
      stacked: whether the seeds train side by side, by vmap, which changes only the rounding. None
        means True on GPUs and TPUs, which one small network leaves idle, and False on a CPU. Seeds
        that have reached different steps train one after the other.
      commit: commit of the code, for `TrainResult.commits`.
      on_steps: called when seeds begin or resume, and on a CPU twice a minute.
      on_epoch: called after each epoch.
      should_stop: called before each piece of work with the seconds that the last such piece took,
        0 for the first; True saves and stops. A piece is one step on a CPU, all full batches of an
        epoch elsewhere, or an evaluation.

    Returns:
      The results of the seeds whose loss and gradient stayed finite.

    Raises:
      InputError: a config that asks for something else, or a folder of another training.
      DivergedError: no loss or gradient stayed finite.
      StoppedError: `should_stop` returned True.
    """
    if not folders or not all(0 <= seed < 2**32 for seed in folders):
        raise InputError(f"The seeds are {[*folders]}, expected integers from 0 to 2**32 - 1.")
    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    # Steps are long on a CPU: called one by one, they stop sooner and cost nothing more.
    steps = DeviceSteps(config, arrays, device, whole_epochs=not on_cpu)
    identity = {"images": _checksum(arrays), "device": device.device_kind}
    with contextlib.ExitStack() as opened:
        runs = []
        for seed, folder in folders.items():
            of_seed = to_dict(config) | {"seed": seed}
            claim_workdir(folder, of_seed)
            run = Run(
                folder,
                of_seed,
                best_metric=steps.task.best_metric,
                identity=identity,
                commit=commit,
                begin_again=True,
            )
            runs.append(opened.enter_context(run))
        left = [run for run in runs if _result(run, steps) is None]
        if stacked or (stacked is None and not on_cpu):
            stacks = _at_the_same_step(left)
        else:
            stacks = [[run] for run in left]
        diverged, error = [], None
        while stacks:
            stack = stacks.pop(0)
            try:
                _train_stack(steps, stack, on_steps, on_epoch, should_stop)
            except DivergedError as raised:
                error = raised
                diverged += [stack[index] for index in raised.seeds]
                if others := [run for run in stack if run not in diverged]:
                    stacks.insert(0, others)
        found = [_result(run, steps) for run in runs if run not in diverged]
        results = [result for result in found if result is not None]
    if error and not results:
        raise error
    return results


def _train_stack(
    steps: DeviceSteps,
    runs: Sequence[Run],
    on_steps: Callable[[StepReport], None],
    on_epoch: Callable[[EpochReport], None],
    should_stop: Callable[[float], bool],
) -> None:
    steps = steps.of_seeds([run.config["seed"] for run in runs])

    def open_log(step: int, evaluate_again: bool) -> SeedsLog:
        return SeedsLog(steps, runs, step, evaluate_again, on_steps=on_steps, on_epoch=on_epoch)

    Loop(
        steps,
        runs,
        open_log,
        save_every_seconds=_SAVE_EVERY,
        should_stop=lambda step, seconds: should_stop(seconds),
    ).run()


def _result(run: Run, steps: DeviceSteps) -> TrainResult | None:
    """Returns the results of a run, or None if it is not finished."""
    restored = run.restore(steps.template)
    if restored is None:
        return None
    state, step = restored
    if step < steps.total_steps or not run.checkpoints.has_metrics(step):
        return None
    epochs = read_epochs(run.workdir)
    return TrainResult(run.config, state, epochs, run.seconds / 60, tuple(run.commits))


def _at_the_same_step(runs: Sequence[Run]) -> list[list[Run]]:
    """Groups runs that can resume from a common step."""
    groups: list[tuple[set[int], list[Run]]] = []
    for run in runs:
        steps = run.resumable_steps()
        for index, (common, group) in enumerate(groups):
            if common & steps:
                groups[index] = (common & steps, [*group, run])
                break
        else:
            groups.append((steps, [run]))
    return [group for _, group in groups]


def _checksum(arrays: Arrays) -> int:
    # The labels tell datasets apart, and the images have a thousand times as many bytes.
    return zlib.crc32(arrays.test_labels.tobytes(), zlib.crc32(arrays.train_labels.tobytes()))
