"""Tasks: what a batch means, its loss, its metrics and its evaluation."""

from __future__ import annotations

import copy
import importlib
import os
from typing import TYPE_CHECKING, Any, Protocol

from shift_jax.config import StyleConfig, check
from shift_jax.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from pathlib import Path

    import jax

    from shift_jax.config import ExperimentConfig
    from shift_jax.data import Batches, Fingerprint


class Task(Protocol):
    """All that the training loop knows about a task.

    Attributes:
      steps_per_epoch: of the training split.
      examples_per_epoch: of the training split.
      num_classes: of the training split; None where the examples have none.
      training_data: identifies the training examples.
      batch_sizes: the sizes of global training batches that occur.
      eval_batch_size: smallest global size of the evaluation batches.
      eval_split: the split evaluated during training.
      best_metric: the metric of `summarize` by which the best checkpoint is kept, larger is better.
      fractions: the metrics that are shown as percentages.
    """

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def examples_per_epoch(self) -> int: ...

    @property
    def num_classes(self) -> int | None: ...

    @property
    def training_data(self) -> Fingerprint: ...

    @property
    def batch_sizes(self) -> tuple[int, ...]: ...

    eval_batch_size: int
    eval_split: str
    best_metric: str
    fractions: frozenset[str]

    def check(self) -> None:
        """Opens what will be read; InputError for what would only fail later."""

    def init(self, rng: jax.Array) -> dict:
        """Returns fresh variables: "params" and, with BatchNorm, "batch_stats"."""
        ...

    def train_batches(self, start_step: int) -> Batches:
        """Yields this process's rows of each global batch, from `start_step` on, without end."""
        ...

    def eval_batches(self, split: str, batch_size: int) -> Batches:
        """Yields this process's rows of a split's batches, masked where there is no example."""
        ...

    def loss(
        self, variables: dict, batch: dict, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Any, dict[str, jax.Array]]]:
        """Returns (mean loss, (new batch_stats, scalar metrics)) of a training batch."""
        ...

    def evaluation_outputs(self, variables: dict, batch: dict) -> dict[str, jax.Array]:
        """Returns sums over the unmasked examples of a batch, and arrays with a row for each."""
        ...

    def summarize(self, split: str, outputs: dict[str, Any]) -> dict[str, float]:
        """Returns a split's metrics.

        Args:
          split: name of the split.
          outputs: those of `evaluation_outputs` over all batches: scalars are added up, arrays
            joined, with rows of masked examples at their ends.
        """
        ...

    def report(self, split: str, outputs: dict[str, Any], path: Path) -> tuple[str, dict]:
        """Returns what to print of a split, and what the JSON file `path` is to hold.

        It may draw a picture, named as that file but for the ending.
        """
        ...

    def draw(self, split: str, outputs: dict[str, Any], path: Path) -> None:
        """Draws what people want to see of a split while training goes on, if anything."""


class TaskClass(Protocol):
    """What is known of a task before there is a config."""

    best_metric: str

    def __call__(self, config: Any) -> Task: ...


_TASKS = {
    "classification": ("shift_jax.tasks.classification", "Classification"),
    "faces": ("shift_jax.tasks.faces", "Faces"),
    "style": ("shift_jax.tasks.style", "Style"),
}


def task_class(name: str) -> TaskClass:
    """Returns the class of the task with this name; InputError when there is none."""
    if name not in _TASKS:
        raise InputError(
            f"task is {name!r}, expected one of {', '.join(_TASKS)}.{did_you_mean(name, _TASKS)}"
        )
    # Only this one: the others have imports of their own.
    module, attribute = _TASKS[name]
    return getattr(importlib.import_module(module), attribute)


def separate_runs(config: ExperimentConfig) -> dict[str, ExperimentConfig]:
    """Returns the runs that a config asks for: their folders in the workdir, and their configs.

    That is one, in the workdir itself, but for several styles, which make a network each.

    Raises:
      InputError: styles whose runs would have the same folder.
    """
    if not isinstance(config, StyleConfig) or len(config.style.images) < 2:
        return {"": config}
    runs = {}
    for image in config.style.images:
        run = copy.deepcopy(config)
        run.style.images = (image,)
        name = os.path.splitext(os.path.basename(image))[0]
        if name in runs:
            raise InputError(
                f"style.images has two styles named {name!r}, whose networks would go into the "
                "same folder: leave one out or rename its file."
            )
        runs[name] = run
    return runs


def make_task(config: ExperimentConfig) -> Task:
    """Returns the task of an experiment; InputError for a field that is out of range."""
    check(config)
    return task_class(config.task)(config)
