"""What the training loop runs: steps of one run, or of several runs side by side."""

from __future__ import annotations

import abc
import math
import operator
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from shift_jax.tasks import Task
from shift_jax.training.optimizer import make_optimizer, make_schedule
from shift_jax.training.step import Metrics, TrainState, abstract_state, init_state

if TYPE_CHECKING:
    from shift_jax.config import ExperimentConfig


class Piece(NamedTuple):
    """Steps that one call of compiled code takes.

    Attributes:
      count: number of steps.
      images: number of images of one run in all these steps.
    """

    count: int
    images: int


class Steps(abc.ABC):
    """The steps of one experiment, for each of its seeds.

    With several seeds, every array of the state has a leading axis for them, and lists have one
    entry per seed.

    Args:
      config: the experiment.
      task: what it learns, checked.
      mesh: the devices.
      seeds: seeds of initialization, order and augmentation.

    Attributes:
      total_steps: number of steps of a whole run.
      eval_every_steps: steps between evaluations; another one follows the last step.
      learning_rate: a function of the number of steps taken before.

    Raises:
      InputError: a schedule or optimizer that does not exist.
    """

    def __init__(self, config: ExperimentConfig, task: Task, mesh: Mesh, seeds: Sequence[int]):
        self.config, self.task, self.mesh, self.seeds = config, task, mesh, tuple(seeds)
        per_epoch = task.steps_per_epoch
        self.total_steps = math.ceil(config.epochs * per_epoch)
        self.eval_every_steps = max(1, round(config.eval_every_epochs * per_epoch))
        self.learning_rate = make_schedule(config.schedule, per_epoch, self.total_steps)
        self._optimizer = make_optimizer(config.optimizer, self.learning_rate, per_epoch)

    @cached_property
    def template(self) -> TrainState:
        """Shapes, types and shardings of the state of one seed."""
        return self._make(abstract_state, 0)

    def begin(self) -> TrainState:
        """Returns the state at step 0."""
        return self.join([self._make(init_state, seed) for seed in self.seeds])

    def join(self, states: Sequence[TrainState]) -> TrainState:
        """Returns the state of all seeds, given that of each."""
        if len(states) == 1:
            return states[0]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def split(self, state: TrainState) -> list[TrainState]:
        """Returns the state of each seed."""
        if len(self.seeds) == 1:
            return [state]
        return [jax.tree.map(operator.itemgetter(i), state) for i in range(len(self.seeds))]

    @abc.abstractmethod
    def open(self, start_step: int) -> AbstractContextManager:
        """A context in which `take` takes the steps in order, from `start_step` on."""

    @abc.abstractmethod
    def piece(self, step: int) -> Piece:
        """Returns the piece that follows `step` steps; it never contains an evaluation."""

    def compile(self, state: TrainState, step: int, piece: Piece) -> None:  # noqa: B027
        """Compiles a piece ahead of `take`, where the two can be told apart."""

    @abc.abstractmethod
    def take(self, state: TrainState, step: int, piece: Piece) -> tuple[TrainState, Metrics]:
        """Takes a piece.

        Returns:
          The new state, and metrics that reshape to [seeds, steps]. The old state is donated.
        """

    @abc.abstractmethod
    def evaluate(self, state: TrainState, step: int) -> list[dict[str, float]]:
        """Returns the metrics of the evaluation split.

        Raises:
          EvaluationStoppedError: the run was asked to stop.
        """

    def _make(self, make: Callable[..., TrainState], seed: int) -> TrainState:
        ema = bool(self.config.ema_decay)
        return make(self.task, self._optimizer, seed, self.mesh, ema=ema)

    def _make_step(self, make: Callable[..., Callable]) -> Callable:
        """`make_update` or `make_train_step`, as the experiment has it."""
        return make(
            self.task,
            self._optimizer,
            self.mesh,
            accumulation_steps=self.config.accumulation_steps,
            ema_decay=self.config.ema_decay,
            frozen=self.config.optimizer.frozen,
        )
