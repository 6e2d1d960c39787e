"""Steps on arrays that lie on the device: whole epochs in one call, several seeds side by side."""

from __future__ import annotations

import contextlib
import copy
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from shift_jax.config import check, flatten, nested
from shift_jax.errors import InputError
from shift_jax.tasks.array_classification import ArrayClassification
from shift_jax.training.mesh import make_mesh
from shift_jax.training.on_device.arrays import Arrays
from shift_jax.training.on_device.augmentation import draw_crops, take_crops
from shift_jax.training.step import Metrics, TrainState, make_update
from shift_jax.training.steps import Piece, Steps

if TYPE_CHECKING:
    from shift_jax.config import ClassificationConfig

# The only values of these fields that the steps implement.
_ONLY = {
    "task": "classification",
    "init_from": "",
    "fsdp": 1,
    "eval_every_epochs": 1.0,
    "data.augmentation": "pad_crop_flip",
    "data.image_size": 0,
    "data.eval_crop": 1.0,
    "data.train_split": "train",
    "data.eval_split": "test",
}


class DeviceSteps(Steps):
    """Steps of several seeds side by side, on one device.

    Args:
      config: the experiment.
      arrays: the images, which are copied to the device.
      device: the device.
      whole_epochs: whether a piece is all full batches of an epoch, or one batch.

    Raises:
      InputError: a config that asks for something else, or that does not fit the images.
    """

    def __init__(
        self,
        config: ClassificationConfig,
        arrays: Arrays,
        device: jax.Device,  # pyright: ignore[reportInvalidTypeForm]
        *,
        whole_epochs: bool,
    ):
        _check(config)
        sources = {
            config.data.train_split: arrays.train_source,
            config.data.eval_split: arrays.test_source,
        }
        task = ArrayClassification(config, sources)
        task.check()
        super().__init__(config, task, make_mesh([device]), [config.seed])
        self._whole_epochs = whole_epochs
        self._update = self._make_step(make_update)
        self._train, self._test = jax.device_put(
            (
                {"image": arrays.train_images, "label": arrays.train_labels},
                _test_batches(arrays, config.eval_batch_size),
            ),
            device,
        )
        # By whether there are several seeds. Kept, because jit knows a function by its identity.
        self._order_of = _alone_and_side_by_side(self._order_of_seed)
        self._outputs_of = _alone_and_side_by_side(task.evaluation_outputs)
        self._compiled: dict[tuple[int, Piece], jax.stages.Compiled] = {}

    def of_seeds(self, seeds: Sequence[int]) -> DeviceSteps:
        """Returns the steps of these seeds, which share the compiled code."""
        other = copy.copy(self)
        other.seeds = tuple(seeds)
        return other

    def open(self, start_step: int) -> contextlib.AbstractContextManager:
        # The first two keys are the state's.
        keys = jnp.stack([jax.random.split(jax.random.key(seed), 4) for seed in self.seeds])
        self._order_keys, self._crop_keys = (
            keys[:, i] if len(self.seeds) > 1 else keys[0, i] for i in (2, 3)
        )
        self._epoch: int | None = None
        return contextlib.nullcontext()

    def piece(self, step: int) -> Piece:
        first, batch_size = step % self.task.steps_per_epoch, self.task.batch_sizes[0]
        full_batches = self.task.examples_per_epoch // batch_size
        if first == full_batches:
            return Piece(1, self.task.batch_sizes[-1])
        count = full_batches - first if self._whole_epochs else 1
        return Piece(count, count * batch_size)

    def compile(self, state: TrainState, step: int, piece: Piece) -> None:
        if (len(self.seeds), piece) in self._compiled:
            return
        work = partial(self._steps, piece.count, piece.images // piece.count)
        if len(self.seeds) > 1:
            work = jax.vmap(work, (0, 0, 0, None, None))
        lowered = jax.jit(work, donate_argnums=0).lower(state, *self._inputs(step))
        self._compiled[len(self.seeds), piece] = lowered.compile()

    def take(self, state: TrainState, step: int, piece: Piece) -> tuple[TrainState, Metrics]:
        """Takes a piece and waits for it, so that its time can be measured."""
        work = self._compiled[len(self.seeds), piece]
        return jax.block_until_ready(work(state, *self._inputs(step)))

    def evaluate(self, state: TrainState, step: int) -> list[dict[str, float]]:
        variables, outputs_of = state.evaluation_variables(), self._outputs_of[len(self.seeds) > 1]
        sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(()))
        for outputs in [outputs_of(variables, batch) for batch in self._test]:
            for name, value in outputs.items():
                sums[name] = sums[name] + np.atleast_1d(np.asarray(value, np.float64))
        return [
            self.task.summarize(
                self.task.eval_split, {name: float(value[index]) for name, value in sums.items()}
            )
            for index in range(len(self.seeds))
        ]

    def order(self, epoch: int) -> jax.Array:
        """Returns the training images of an epoch in order, int32 [N], or [seeds, N] of several."""
        return self._order_of[len(self.seeds) > 1](self._order_keys, epoch)

    def _order_of_seed(self, key: jax.Array, epoch: int) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(key, epoch), self.task.examples_per_epoch)

    def _inputs(self, step: int) -> tuple:
        """The arguments of a piece beside the state."""
        epoch, first = divmod(step, self.task.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self.order(epoch)
        return self._order, self._crop_keys, self._train, np.int32(first)

    def _steps(
        self, count: int, batch_size: int, state, order, crop_key, train, first
    ) -> tuple[TrainState, Metrics]:
        """Computes a piece for one seed."""
        augmentation = self.config.data

        def step(state: TrainState, index: jax.Array) -> tuple[TrainState, Metrics]:
            start = index * self.task.batch_sizes[0]
            chosen = lax.dynamic_slice_in_dim(order, start, batch_size)
            key = jax.random.fold_in(crop_key, state.step)
            crops = draw_crops(key, batch_size, pad=augmentation.pad, flip=augmentation.flip)
            batch = {
                "image": take_crops(train["image"], chosen, crops, pad=augmentation.pad),
                "label": train["label"][chosen],
            }
            return self._update(state, batch)

        if count == 1:
            return step(state, first)
        return lax.scan(step, state, first + jnp.arange(count, dtype=jnp.int32))


def _alone_and_side_by_side(function: Callable) -> dict[bool, Callable]:
    return {False: jax.jit(function), True: jax.jit(jax.vmap(function, (0, None)))}


def _test_batches(arrays: Arrays, size: int) -> list[dict[str, np.ndarray]]:
    """All test images in batches of one size; the mask is False for the padding of the last one."""
    count = len(arrays.test_labels)
    size = min(size, count)
    padding = -count % size
    arrays_by_name = {
        "image": np.pad(arrays.test_images, [(0, padding), *[(0, 0)] * 3]),
        "label": np.pad(arrays.test_labels, (0, padding)),
        "mask": np.arange(count + padding) < count,
    }
    return [
        {name: array[first : first + size] for name, array in arrays_by_name.items()}
        for first in range(0, count, size)
    ]


def _check(config: ClassificationConfig) -> None:
    """Raises InputError for a config that these steps do not implement."""
    if jax.process_count() > 1:
        raise InputError(
            "Training on the device has one process: start it without --num_processes."
        )
    check(config)
    values = flatten(nested(config))
    for field, only in _ONLY.items():
        if values[field] != only:
            raise InputError(
                f"{field} is {values[field]!r}, but training on the device takes {only!r} only: "
                "use train.py."
            )
    if config.epochs != int(config.epochs) or config.epochs < 1:
        raise InputError(
            f"epochs is {config.epochs}, but training on the device takes whole epochs: round it."
        )
