"""Training of small networks on small images, which lie on the device.

Grain and TensorFlow are not needed; their work for each step takes longer than a small network does
on a GPU. The network, the loss, the update and the loop are those of `shift_jax.training.train`.
The order of the images, the crops and the flips are drawn on the device, so that they are others
than there. As there they are pure functions of (seed, step).
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

# Seconds between two checkpoints, on a CPU within an epoch too.
_SAVE_EVERY = 120


class TrainResult(NamedTuple):
    """One seed, trained to the end.

    Attributes:
      config: plain JSON values, with this seed.
      state: after the last step.
      epochs: all of them, in order.
      minutes: compilation and evaluation included, of wall time on an accelerator and of this
        process's CPU time on a CPU, which other work beside it does not change; of seeds trained
        side by side, each has an equal share.
      commits: of the code that trained it, the first one first.
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
    """Trains a network to the end of its config's schedule, with each of several seeds.

    Args:
      config: an experiment as `shift_jax.training.train` takes it, of whole epochs, with an
        evaluation after each. Where the data is, workers and logs have no effect here.
      arrays: what it is trained and tested on.
      folders: the workdir of each seed's run, which the caller has locked or no other process
        uses. A run goes on from its newest checkpoint; one that is finished is only read.
      stacked: whether the seeds train side by side, by vmap, which changes nothing but the
        rounding; None is True on GPUs and TPUs, which one small network leaves idle, and False on
        a CPU. Seeds that are not at the same step train apart in any case.
      commit: of the code, for `TrainResult.commits`.
      on_steps: called when seeds begin or go on, and on a CPU twice a minute.
      on_epoch: called after each epoch.
      should_stop: called before each piece of work, with the seconds that such a piece took the
        last time, 0 the first time; True saves and stops. A piece is one step on a CPU, an epoch's
        full batches elsewhere, and the evaluation of all test images.

    Returns:
      One result for each seed, but for those whose loss or gradient is no longer finite.

    Raises:
      InputError: a config that asks for what this does not do, or a folder of another training.
      DivergedError: no seed has a finite loss and gradient any longer.
      StoppedError: `should_stop` said so.
    """
    _check_seeds(tuple(folders))
    device = jax.devices()[0]
    on_cpu = device.platform == "cpu"
    # A CPU's steps are long enough to be called one by one, and a stop need not wait long.
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
        stacked = not on_cpu if stacked is None else stacked
        stacks = _at_the_same_step(left) if stacked else [[run] for run in left]
        error, diverged = None, []
        while stacks:
            stack = stacks.pop(0)
            loop = Loop(
                steps.of_seeds([run.config["seed"] for run in stack]),
                stack,
                lambda step, again, stack=stack: SeedsLog(
                    stack,
                    step,
                    again,
                    epochs=int(config.epochs),
                    steps_per_epoch=steps.task.steps_per_epoch,
                    images_per_epoch=steps.task.examples_per_epoch,
                    on_steps=on_steps,
                    on_epoch=on_epoch,
                ),
                log_every_steps=config.log_every_steps,
                checkpoint_every_steps=config.checkpoint_every_steps,
                checkpoint_every_seconds=_SAVE_EVERY,
                should_stop=lambda step, seconds: should_stop(seconds),
            )
            try:
                loop.run()
            except DivergedError as raised:
                error = raised
                diverged += [run for i, run in enumerate(stack) if i in raised.runs]
                if others := [run for run in stack if run not in diverged]:
                    stacks.insert(0, others)
        results = [_result(run, steps) for run in runs if run not in diverged]
    if error and not results:
        raise error
    return results


def _result(run: Run, steps: DeviceSteps) -> TrainResult | None:
    """What a run has come to, None if it is not finished."""
    restored = run.restore(steps.template())
    if restored is None:
        return None
    state, step = restored
    if step < steps.total_steps or not run.checkpoints.has_metrics(step):
        return None
    epochs = read_epochs(run.workdir)
    return TrainResult(run.config, state, epochs, run.seconds / 60, tuple(run.commits))


def _at_the_same_step(runs: Sequence[Run]) -> list[list[Run]]:
    """Returns stacks of runs that have a step in common to go on from."""
    stacks: list[tuple[set[int], list[Run]]] = []
    for run in runs:
        steps = run.resumable_steps()
        for index, (common, stack) in enumerate(stacks):
            if common & steps:
                stacks[index] = (common & steps, [*stack, run])
                break
        else:
            stacks.append((steps, [run]))
    return [stack for _, stack in stacks]


def _checksum(arrays: Arrays) -> int:
    # The labels tell datasets apart, and the images are a thousand times as many bytes.
    return zlib.crc32(arrays.test_labels.tobytes(), zlib.crc32(arrays.train_labels.tobytes()))


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds or not all(0 <= seed < 2**32 for seed in seeds):
        raise InputError(f"The seeds are {seeds}, expected integers from 0 to 2**32 - 1.")
