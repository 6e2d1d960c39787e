"""What the training loop tells about its runs, and when."""

from __future__ import annotations

import collections
import math
from collections.abc import Mapping, Sequence

import jax
import numpy as np

from shift_jax.training.processes.stopping import StopRequest
from shift_jax.training.steps import Piece

# Pieces that may still be computing while the next ones are dispatched.
_PIECES_IN_FLIGHT = 2


class Log:
    """Receives what the loop tells, and does nothing with it. Lists have one entry per seed."""

    def train_step(self, step: int, metrics: Sequence[Mapping[str, float]]) -> None:
        """Receives the metrics of a step, perhaps a few steps late."""

    def took(self, step: int, piece: Piece, seconds: float) -> None:
        """Receives how long the piece that ends at `step` took, without its compilation."""

    def report(
        self, step: int, metrics: Sequence[Mapping[str, float]], learning_rate: float
    ) -> None:
        """Receives the means of the metrics since the last report."""

    def saved(self, step: int) -> None:
        """Hears that a checkpoint of `step` was saved."""

    def evaluation(
        self,
        step: int,
        metrics: Sequence[Mapping[str, float]],
        seconds: float,
        *,
        again: bool = False,
    ) -> None:
        """Receives the metrics of an evaluation; `again` says that they are on record already."""

    def close(self) -> None:
        """Hears that nothing will follow."""


class MetricsBuffer:
    """Collects metrics a few pieces late, so that the devices need not wait for the host.

    Args:
      log: receives the metrics of every step.
      stop: receives the wishes to stop among them.
      seeds: number of seeds.

    Attributes:
      diverged: describes the first metric that was not finite, by the index of the seed.
    """

    def __init__(self, log: Log, stop: StopRequest, seeds: int):
        self._log, self._stop, self._seeds = log, stop, seeds
        self._coming: collections.deque = collections.deque()
        self._since_means: list[list[dict[str, float]]] = []
        self.diverged: dict[int, str] = {}

    def push(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Adds the metrics of the piece that begins after `step` steps."""
        self._coming.append((step, metrics))
        if len(self._coming) > _PIECES_IN_FLIGHT:
            self._wait()

    def means(self) -> list[dict[str, float]]:
        """Waits for all steps; returns the means over those since the last call."""
        while self._coming:
            self._wait()
        steps, self._since_means = self._since_means, []
        keys = sorted(steps[0][0], key=lambda key: (key != "loss", key))
        return [
            {key: sum(step[seed][key] for step in steps) / len(steps) for key in keys}
            for seed in range(self._seeds)
        ]

    def _wait(self) -> None:
        step, metrics = self._coming.popleft()
        metrics = self._stop.listen(jax.device_get(metrics))
        # Python floats, as [seeds][steps] of each metric.
        values = {k: np.reshape(v, (self._seeds, -1)).tolist() for k, v in metrics.items()}
        for index in range(len(values["loss"][0])):
            step += 1
            of_seeds = [
                {k: v[seed][index] for k, v in values.items()} for seed in range(self._seeds)
            ]
            self._log.train_step(step, of_seeds)
            self._since_means.append(of_seeds)
            self.diverged = not_finite(of_seeds, f"at step {step}") | self.diverged


def not_finite(metrics: Sequence[dict[str, float]], where: str) -> dict[int, str]:
    """Describes the first metric that is not finite, by the index of the seed."""
    return {
        seed: f"The {key.replace('_', ' ')} {where} is {value}"
        for seed, of_seed in enumerate(metrics)
        for key, value in reversed(of_seed.items())
        if not math.isfinite(value)
    }
