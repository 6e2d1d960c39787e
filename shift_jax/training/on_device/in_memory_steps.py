"""What the training in memory computes: compiled pieces of work for several seeds at once."""

from __future__ import annotations

import operator
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

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
from shift_jax.training.step import TrainState, init_state, make_update

if TYPE_CHECKING:
    from shift_jax.config import ClassificationConfig


# Fields of a config that ask for what this does not do, and the values that do not.
_ONLY = {
    "task": "classification",
    "accumulation_steps": 1,
    "ema_decay": 0.0,
    "fsdp": 1,
    "eval_every_epochs": 1.0,
    "data.augmentation": "pad_crop_flip",
    "data.image_size": 0,
    "data.eval_crop": 1.0,
    "data.train_split": "train",
    "data.eval_split": "test",
}


class Progressing(NamedTuple):
    """What changes from step to step; of several seeds all arrays have an axis for them first.

    Attributes:
      state: the trainer's.
      sums: of the "loss" and the "top1" of this epoch's steps so far.
      order_key: of the orders of the epochs, constant.
      crop_key: of the crops of the steps, constant.
    """

    state: TrainState
    sums: dict[str, jax.Array]
    order_key: jax.Array
    crop_key: jax.Array

    def reset(self) -> Progressing:
        """Returns the same with the sums of a new epoch."""
        return self._replace(sums=jax.tree.map(jnp.zeros_like, self.sums))


class Piece(NamedTuple):
    """Steps of an epoch that are one call of compiled code.

    Attributes:
      first: number of the first step in the epoch.
      count: of steps.
      size: of their batches.
    """

    first: int
    count: int
    size: int


class Computations:
    """The pieces of work that training a network is made of.

    Args:
      config: the experiment.
      arrays: the images, which are put on the device.
      device: where.
      num_seeds: how many are trained at the same time.
      whole_epochs: whether all whole batches of an epoch are one call, or each batch is one.

    Attributes:
      task: what is learned.
      pieces: of each epoch, in order.

    Raises:
      InputError: a config that asks for what this does not do, or that does not fit the images.
    """

    def __init__(
        self,
        config: ClassificationConfig,
        arrays: Arrays,
        device: jax.Device,
        *,
        num_seeds: int,
        whole_epochs: bool,
    ):
        _check(config)
        sources = {
            config.data.train_split: arrays.train_source,
            config.data.eval_split: arrays.test_source,
        }
        self.task = ArrayClassification(config, sources)
        self.task.check()
        steps = self.task.steps_per_epoch
        schedule = make_schedule(config.schedule, steps, int(config.epochs) * steps)
        self._optimizer = make_optimizer(config.optimizer, schedule, steps)
        self._mesh = make_mesh([device])
        self._update = make_update(self.task, self._optimizer, self._mesh)
        self.pieces = _pieces(steps, *self.task.batch_sizes, whole_epochs=whole_epochs)
        self._num_seeds = num_seeds
        self._pad, self._flip = config.data.pad, config.data.flip
        self._train, self._test = jax.device_put(
            (
                {"image": arrays.train_images, "label": arrays.train_labels},
                _test_batches(arrays, config.eval_batch_size),
            ),
            device,
        )
        examples = self.task.examples_per_epoch
        self._order_of = jax.jit(
            self._of_all(
                lambda key, epoch: jax.random.permutation(jax.random.fold_in(key, epoch), examples),
                *(0, None),
            )
        )
        self._evaluate = jax.jit(self._of_all(self.task.evaluation_outputs, 0, None))
        self._compiled: dict[tuple[int, int], jax.stages.Compiled] = {}

    def begin(self, seeds: Sequence[int]) -> Progressing:
        """Returns what is at step 0: for each seed the state that the trainer begins with."""

        def of_seed(seed: int) -> Progressing:
            # The state begins with the first two.
            _, _, order_key, crop_key = jax.random.split(jax.random.key(seed), 4)
            state = init_state(self.task, self._optimizer, seed, self._mesh)
            sums = {"loss": jnp.zeros(()), "top1": jnp.zeros(())}
            return Progressing(state, sums, order_key, crop_key)

        if self._num_seeds == 1:
            return of_seed(*seeds)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(of_seed, seeds))

    def order(self, progressing: Progressing, epoch: int) -> jax.Array:
        """Returns the indices of all training images in the order of an epoch."""
        return self._order_of(progressing.order_key, epoch)

    def compile(self, piece: Piece, progressing: Progressing, order: jax.Array) -> None:
        """Prepares `run` for such a piece, so that the time it takes is that of the work."""
        if piece[1:] not in self._compiled:
            steps = partial(self._steps, piece.count, piece.size)
            self._compiled[piece[1:]] = (
                jax.jit(self._of_all(steps, 0, 0, None, None), donate_argnums=0)
                .lower(progressing, order, self._train, np.int32(piece.first))
                .compile()
            )

    def run(self, piece: Piece, progressing: Progressing, order: jax.Array) -> Progressing:
        """Computes a piece, and waits for it; donates what was before."""
        work = self._compiled[piece[1:]]
        return jax.block_until_ready(work(progressing, order, self._train, np.int32(piece.first)))

    def evaluate(self, progressing: Progressing) -> list[dict[str, float]]:
        """Returns the metrics of each seed on all test images."""
        variables = progressing.state.evaluation_variables()
        sums: dict[str, np.ndarray | float] = defaultdict(float)
        for outputs in [self._evaluate(variables, batch) for batch in self._test]:
            for name, value in outputs.items():
                sums[name] += np.atleast_1d(np.asarray(value, np.float64))
        return [
            self.task.summarize(
                self.task.eval_split, {name: float(value[index]) for name, value in sums.items()}
            )
            for index in range(self._num_seeds)
        ]

    def of_seeds(self, tree: Any) -> list[Any]:
        """Returns the part of each seed of what has an axis for them where there are several."""
        if self._num_seeds == 1:
            return [tree]
        return [jax.tree.map(operator.itemgetter(index), tree) for index in range(self._num_seeds)]

    def _of_all(self, function: Callable, *axes: int | None) -> Callable:
        return function if self._num_seeds == 1 else jax.vmap(function, axes)

    def _steps(self, count: int, size: int, progressing, order, train, first) -> Progressing:
        """What `run` computes, of one seed."""
        if count == 1:
            return self._step(size, progressing, order, train, first)

        def step(progressing, index):
            return self._step(size, progressing, order, train, index), None

        return lax.scan(step, progressing, first + jnp.arange(count, dtype=jnp.int32))[0]

    def _step(self, size: int, progressing, order, train, index) -> Progressing:
        state, sums = progressing.state, progressing.sums
        chosen = lax.dynamic_slice_in_dim(order, index * self.task.batch_sizes[0], size)
        key = jax.random.fold_in(progressing.crop_key, state.step)
        crops = draw_crops(key, size, pad=self._pad, flip=self._flip)
        batch = {
            "image": take_crops(train["image"], chosen, crops, pad=self._pad),
            "label": train["label"][chosen],
        }
        state, metrics = self._update(state, batch)
        sums = {name: total + metrics[name] for name, total in sums.items()}
        return progressing._replace(state=state, sums=sums)


def _pieces(
    steps: int, size: int, last_size: int | None = None, *, whole_epochs: bool
) -> tuple[Piece, ...]:
    whole = steps if last_size is None else steps - 1
    each = whole if whole_epochs else 1
    pieces = [Piece(first, each, size) for first in range(0, whole, each)]
    return (*pieces, *([] if last_size is None else [Piece(whole, 1, last_size)]))


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
    """Raises InputError for what this does not do."""
    if jax.process_count() > 1:
        raise InputError("Training in memory has one process: start it without --num_processes.")
    check(config)
    values = flatten(nested(config))
    for field, only in _ONLY.items():
        if values[field] != only:
            raise InputError(
                f"{field} is {values[field]!r}, but training in memory knows {only!r} only: use "
                "train.py."
            )
    if config.epochs != int(config.epochs) or config.epochs < 1:
        raise InputError(
            f"epochs is {config.epochs}, but training in memory takes whole epochs: round it."
        )
