"""What a run learns: a batch's meaning, its loss and its metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from shift_jax.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import jax
    from ml_collections import ConfigDict


class Task(Protocol):
    """All that the training loop knows of a task.

    Attributes:
      steps_per_epoch: of the training split.
      examples_per_epoch: of the training split.
      batch_sizes: the sizes of global training batches that occur.
      eval_batch_size: smallest global size of the evaluation batches.
      eval_split: the split evaluated during training.
      best_metric: the metric of `summarize` by which the best checkpoint is kept, larger is better.
      fractions: the metrics that are shown as percentages.
    """

    steps_per_epoch: int
    examples_per_epoch: int
    batch_sizes: tuple[int, ...]
    eval_batch_size: int
    eval_split: str
    best_metric: str
    fractions: frozenset[str]

    def check(self) -> None:
        """Opens what will be read; InputError for what would only fail later."""

    def init(self, rng: jax.Array) -> dict:
        """Returns fresh variables: "params" and, with BatchNorm, "batch_stats"."""

    def train_batches(self, start_step: int) -> Iterator[dict]:
        """Yields this process's rows of each global batch, from `start_step` on, without end."""

    def eval_batches(self, split: str, batch_size: int) -> Iterator[dict]:
        """Yields this process's rows of a split's batches, masked where there is no example."""

    def loss(
        self, variables: dict, batch: dict, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        """Returns (mean loss, (new batch_stats, scalar metrics)) of a training batch."""

    def evaluation_sums(self, variables: dict, batch: dict) -> dict[str, jax.Array]:
        """Returns sums over the unmasked examples of a batch."""

    def summarize(self, sums: dict[str, float]) -> dict[str, float]:
        """Returns a split's metrics from the sums over its batches."""


def task_class(name: str) -> type[Task]:
    """Returns the class of the task with this name; InputError when there is none."""
    from shift_jax.tasks.classification import Classification

    tasks = {"classification": Classification}
    if name not in tasks:
        raise InputError(
            f"task is {name!r}, expected one of {', '.join(tasks)}.{did_you_mean(name, tasks)}"
        )
    return tasks[name]


def make_task(config: ConfigDict) -> Task:
    """Returns the task of an experiment's config; InputError when it has an unknown name."""
    return task_class(config.task)(config)
