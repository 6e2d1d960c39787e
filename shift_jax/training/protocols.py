"""What the training loop knows of the steps that it runs, and of the log that it writes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import jax

from shift_jax.training.step import TrainState


class Piece(NamedTuple):
    """Steps that are one call of compiled code.

    Attributes:
      count: of steps.
      images: in all of them, of one run.
    """

    count: int
    images: int


class Steps(Protocol):
    """What the loop knows of the steps it runs, of one run or of several side by side.

    Lists have one entry for each run, and the state is of all of them.

    Attributes:
      total_steps: of a whole run.
      eval_every_steps: between evaluations; one more follows the last step.
      eval_split: the split that is evaluated.
    """

    total_steps: int
    eval_every_steps: int
    eval_split: str

    def template(self) -> TrainState:
        """Returns the shapes, types and shardings of the state of one run."""

    def begin(self) -> TrainState:
        """Returns the state of step 0."""

    def join(self, states: list[TrainState]) -> TrainState:
        """Returns the state of all runs."""

    def split(self, state: TrainState) -> list[TrainState]:
        """Returns the states of the runs."""

    def open(self, start_step: int) -> AbstractContextManager:
        """A context in which steps can be taken, in order from `start_step` on."""

    def piece(self, step: int) -> Piece:
        """Returns the piece that begins after `step` steps; an evaluation is never within one."""

    def compile(self, state: TrainState, step: int, piece: Piece) -> None:
        """Prepares `take`, where compilation can be told from the work."""

    def take(
        self, state: TrainState, step: int, piece: Piece
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """Takes a piece; returns the new state and metrics of shape () or [runs, steps]."""

    def learning_rate(self, step: int) -> float:
        """Returns the learning rate of the step after `step` steps."""

    def evaluate(self, state: TrainState, step: int) -> list[dict[str, float]]:
        """Returns the metrics of the whole split; raises EvaluationStoppedError."""


class Log(Protocol):
    """Whom the loop tells what happens; lists have one entry for each run."""

    def train_step(self, step: int, metrics: list[dict[str, float]]) -> None:
        """A step's metrics have come; they may come some steps late."""

    def took(self, step: int, piece: Piece, seconds: float) -> None:
        """A piece that ends at `step` took so long, compilation not counted."""

    def report(self, step: int, metrics: list[dict[str, float]], learning_rate: float) -> None:
        """These are the means since the last report."""

    def saved(self, step: int) -> None:
        """A checkpoint was saved."""

    def evaluation(
        self, step: int, metrics: list[dict[str, float]], seconds: float, *, again: bool = False
    ) -> None:
        """An evaluation has ended; `again` if it is recorded already."""

    def close(self) -> None:
        """Nothing more comes."""
