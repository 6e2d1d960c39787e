"""Steps on arrays that lie on the device: whole epochs in one call, several seeds side by side."""

from __future__ import annotations

import contextlib
import copy
import operator
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
from shift_jax.training.optimizer import make_optimizer, make_schedule
from shift_jax.training.protocols import Piece
from shift_jax.training.step import TrainState, abstract_state, init_state, make_update

if TYPE_CHECKING:
    from shift_jax.config import ClassificationConfig

# Fields of a config that could ask for what these steps do not do, and the values that do not.
_ONLY = {
    "task": "classification",
    "fsdp": 1,
    "eval_every_epochs": 1.0,
    "data.augmentation": "pad_crop_flip",
    "data.image_size": 0,
    "data.eval_crop": 1.0,
    "data.train_split": "train",
    "data.eval_split": "test",
}


class DeviceSteps:
    """The `shift_jax.training.protocols.Steps` of seeds that train side by side on one device.

    Of several seeds, all arrays of the state have an axis for them first.

    Args:
      config: the experiment, whose seed has no effect.
      arrays: the images, which are copied to the device.
      device: where.
      whole_epochs: whether all full batches of an epoch are one piece, or each batch is one.

    Attributes:
      seeds: those that train.

    Raises:
      InputError: a config that asks for what this does not do, or that does not fit the images.
    """

    def __init__(
        self,
        config: ClassificationConfig,
        arrays: Arrays,
        device: jax.Device,
        *,
        whole_epochs: bool,
    ):
        _check(config)
        sources = {
            config.data.train_split: arrays.train_source,
            config.data.eval_split: arrays.test_source,
        }
        self.task = ArrayClassification(config, sources)
        self.task.check()
        self.eval_every_steps = self.task.steps_per_epoch
        self.total_steps = int(config.epochs) * self.eval_every_steps
        self.eval_split = self.task.eval_split
        self.seeds: tuple[int, ...] = (config.seed,)
        self._whole_epochs = whole_epochs
        self._pad, self._flip = config.data.pad, config.data.flip
        self._schedule = make_schedule(config.schedule, self.eval_every_steps, self.total_steps)
        self._optimizer = make_optimizer(config.optimizer, self._schedule, self.eval_every_steps)
        self._mesh = make_mesh([device])
        self._ema = bool(config.ema_decay)
        self._update = make_update(
            self.task,
            self._optimizer,
            self._mesh,
            accumulation_steps=config.accumulation_steps,
            ema_decay=config.ema_decay,
        )
        self._train, self._test = jax.device_put(
            (
                {"image": arrays.train_images, "label": arrays.train_labels},
                _test_batches(arrays, config.eval_batch_size),
            ),
            device,
        )
        # By whether there are several seeds: jit would not know the same function again.
        self._order_of = _with_and_without_seeds(self._order_of_seed, 0, None)
        self._outputs_of = _with_and_without_seeds(self.task.evaluation_outputs, 0, None)
        self._compiled: dict[tuple[int, int, int], jax.stages.Compiled] = {}

    def of_seeds(self, seeds: Sequence[int]) -> DeviceSteps:
        """Returns the steps of other seeds, which share what is compiled already."""
        other = copy.copy(self)
        other.seeds = tuple(seeds)
        return other

    def template(self) -> TrainState:
        return abstract_state(self.task, self._optimizer, 0, self._mesh, ema=self._ema)

    def begin(self) -> TrainState:
        return self.join(
            [
                init_state(self.task, self._optimizer, seed, self._mesh, ema=self._ema)
                for seed in self.seeds
            ]
        )

    def join(self, states: list[TrainState]) -> TrainState:
        if len(states) == 1:
            return states[0]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def split(self, state: TrainState) -> list[TrainState]:
        if len(self.seeds) == 1:
            return [state]
        seeds = range(len(self.seeds))
        return [jax.tree.map(operator.itemgetter(index), state) for index in seeds]

    def open(self, start_step: int) -> contextlib.AbstractContextManager:
        # The state begins with the first two keys.
        keys = [jax.random.split(jax.random.key(seed), 4) for seed in self.seeds]
        several = len(keys) > 1
        self._order_keys, self._crop_keys = (
            jnp.stack([each[i] for each in keys]) if several else keys[0][i] for i in (2, 3)
        )
        self._order_epoch: int | None = None
        return contextlib.nullcontext()

    def piece(self, step: int) -> Piece:
        first, full = step % self.eval_every_steps, self.task.batch_sizes[0]
        full_batches = self.task.examples_per_epoch // full
        if first >= full_batches:
            return Piece(1, self.task.batch_sizes[-1])
        count = full_batches - first if self._whole_epochs else 1
        return Piece(count, count * full)

    def compile(self, state: TrainState, step: int, piece: Piece) -> None:
        kind = (len(self.seeds), *piece)
        if kind not in self._compiled:
            steps = partial(self._steps, piece.count, piece.images // piece.count)
            if len(self.seeds) > 1:
                steps = jax.vmap(steps, (0, 0, 0, None, None))
            inputs = self._inputs(step)
            work = jax.jit(steps, donate_argnums=0).lower(state, *inputs)
            self._compiled[kind] = work.compile()

    def take(
        self, state: TrainState, step: int, piece: Piece
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Takes a piece, and waits for it, so that the time it takes is that of the work."""
        work = self._compiled[len(self.seeds), *piece]
        return jax.block_until_ready(work(state, *self._inputs(step)))

    def learning_rate(self, step: int) -> float:
        return float(self._schedule(step))

    def evaluate(self, state: TrainState, step: int) -> list[dict[str, float]]:
        variables, outputs_of = state.evaluation_variables(), self._outputs_of[len(self.seeds) > 1]
        sums: dict[str, np.ndarray | float] = defaultdict(float)
        for outputs in [outputs_of(variables, batch) for batch in self._test]:
            for name, value in outputs.items():
                sums[name] += np.atleast_1d(np.asarray(value, np.float64))
        return [
            self.task.summarize(
                self.eval_split, {name: float(value[index]) for name, value in sums.items()}
            )
            for index in range(len(self.seeds))
        ]

    def order(self, epoch: int) -> jax.Array:
        """Returns the indices of all training images in the order of an epoch, [(seeds,) N]."""
        return self._order_of[len(self.seeds) > 1](self._order_keys, epoch)

    def _order_of_seed(self, key: jax.Array, epoch: int) -> jax.Array:
        return jax.random.permutation(jax.random.fold_in(key, epoch), self.task.examples_per_epoch)

    def _inputs(self, step: int) -> tuple:
        """What a piece takes beside the state."""
        epoch, first = divmod(step, self.eval_every_steps)
        if epoch != self._order_epoch:
            self._order_epoch, self._order = epoch, self.order(epoch)
        return self._order, self._crop_keys, self._train, np.int32(first)

    def _steps(self, count: int, size: int, state, order, crop_key, train, first):
        """What `take` computes, of one seed."""

        def step(state: TrainState, index: jax.Array):
            chosen = lax.dynamic_slice_in_dim(order, index * self.task.batch_sizes[0], size)
            key = jax.random.fold_in(crop_key, state.step)
            crops = draw_crops(key, size, pad=self._pad, flip=self._flip)
            batch = {
                "image": take_crops(train["image"], chosen, crops, pad=self._pad),
                "label": train["label"][chosen],
            }
            return self._update(state, batch)

        if count == 1:
            return step(state, first)
        return lax.scan(step, state, first + jnp.arange(count, dtype=jnp.int32))


def _with_and_without_seeds(function: Callable, *axes: int | None) -> dict[bool, Callable]:
    return {False: jax.jit(function), True: jax.jit(jax.vmap(function, axes))}


def _test_batches(arrays: Arrays, size: int) -> list[dict[str, np.ndarray]]:
    """All test images in batches of one size; the mask is False where the last is filled up."""
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
    """Raises InputError for what these steps do not do."""
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
