"""Training from arrays that lie on the device: for small images and small networks.

Without Grain and TensorFlow, whose work for each step takes longer than a small network does on a
GPU. The network, the loss, the optimizer and the update are those of `shift_jax.training.loop`; the
order of the images, the crops and the flips are drawn on the device, so that they are others than
the loop's. As there they are pure functions of (seed, step).
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jax

from shift_jax.config import to_dict
from shift_jax.errors import InputError
from shift_jax.training.on_device.arrays import Arrays
from shift_jax.training.on_device.in_memory_run import Progress, Run, Steps, Trained
from shift_jax.training.on_device.in_memory_steps import Computations

if TYPE_CHECKING:
    from shift_jax.config import ClassificationConfig


def train(
    config: ClassificationConfig,
    arrays: Arrays,
    *,
    seeds: Sequence[int] | None = None,
    stacked: bool | None = None,
    folder: str | Path | None = None,
    commit: str = "",
    on_steps: Callable[[Steps], None] = lambda steps: None,
    on_epoch: Callable[[Progress], None] = lambda progress: None,
    should_stop: Callable[[float], bool] = lambda seconds: False,
) -> list[Trained]:
    """Trains a network to the end of its config's schedule, with each of the seeds.

    Args:
      config: an experiment as train.py takes, of whole epochs with an evaluation after each. Fields
        that change only how a run is carried out have no effect here; nor do data.name and
        data.data_dir.
      arrays: what it is trained and tested on.
      seeds: of initialisation, order and augmentation; None is `config.seed` alone.
      stacked: whether the seeds train at the same time, by vmap, which changes nothing but the
        rounding; None is True on GPUs and TPUs, which one small network leaves idle, and False on
        a CPU.
      folder: where the state is saved after each epoch, on a CPU every two minutes too, and found
        again; None saves none.
      commit: of the code, for `Trained.commits`.
      on_steps: called when a stack of seeds begins or goes on, and on a CPU twice a minute.
      on_epoch: called after each epoch.
      should_stop: called before each piece of work, with the seconds that such a piece took the
        last time, 0 the first time; True saves and stops. A piece is one step on a CPU, an epoch's
        steps elsewhere, and the evaluation of all test images.

    Returns:
      One `Trained` for each seed, but for those of a stack whose losses are no longer finite.

    Raises:
      InputError: a config that asks for what this does not do, or a folder of another config.
      NotFiniteError: no loss of a stack is finite any longer.
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
        run = Run(
            *(compute, to_dict(config), stack, path),
            checksum=_checksum(arrays),
            commit=commit,
            on_steps=on_steps,
            on_epoch=on_epoch,
            should_stop=should_stop,
        )
        trained += run.to_the_end()
    return trained


def state_path(folder: str | Path, seeds: Sequence[int]) -> Path:
    """Returns where `train` keeps the state of seeds that train at the same time."""
    return Path(folder) / f"seeds-{'-'.join(map(str, seeds))}.npz"


def _checksum(arrays: Arrays) -> int:
    # The labels tell datasets apart, and the images are a thousand times as many bytes.
    return zlib.crc32(arrays.test_labels.tobytes(), zlib.crc32(arrays.train_labels.tobytes()))


def _check_seeds(seeds: Sequence[int]) -> None:
    if not seeds or len(set(seeds)) < len(seeds) or not all(0 <= s < 2**32 for s in seeds):
        raise InputError(
            f"seeds is {tuple(seeds)}, expected different integers from 0 to 2**32 - 1."
        )
