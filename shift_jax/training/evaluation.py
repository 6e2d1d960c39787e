"""Evaluation that counts every example exactly once, on any number of devices."""

from __future__ import annotations

import contextlib
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from shift_jax.errors import InputError
from shift_jax.tasks import Task, make_task, task_class
from shift_jax.training.checkpoints import find_checkpoint, restore_variables
from shift_jax.training.mesh import make_mesh, replicated, to_devices
from shift_jax.training.processes import from_first, is_first
from shift_jax.training.step import make_eval_step
from shift_jax.training.stopping import StopRequest
from shift_jax.training.workdir import read_config, write_json


class EvaluationStoppedError(Exception):
    """The run was asked to stop during an evaluation."""


def evaluate(
    task: Task,
    variables: dict,
    split: str,
    eval_step: Callable,
    mesh: Mesh,
    stop: StopRequest | None = None,
) -> dict[str, float]:
    """Returns the task's metrics over one whole split.

    Args:
      task: yields masked batches of constant size and turns their sums into metrics.
      variables: of the network, on the devices in any way or on the host.
      split: name of the split.
      eval_step: from `make_eval_step`.
      mesh: the devices.
      stop: looked at after each batch.

    Raises:
      InputError: the split cannot be read.
      EvaluationStoppedError: `stop` was asked for.
    """
    # The last batch is padded anyway, so all of them may as well divide over the devices.
    batch_size = math.ceil(task.eval_batch_size / mesh.size) * mesh.size
    sums: dict[str, float] = defaultdict(float)

    def add(batch_sums) -> None:
        if stop is not None:
            batch_sums = stop.listen(batch_sums)
            if stop.is_agreed:
                raise EvaluationStoppedError
        # As Python floats: float32 cannot count past 2^24 examples.
        for key, value in batch_sums.items():
            sums[key] += float(value)

    running: dict = {}
    with contextlib.closing(task.eval_batches(split, batch_size)) as batches:
        marked = batches if stop is None else stop.mark(batches)
        for batch in to_devices(marked, mesh):
            finished, running = running, eval_step(variables, batch)
            add(finished)
        add(running)
    return task.summarize(sums)


class TrainedModel:
    """One checkpoint with its task, ready to evaluate.

    Args:
      checkpoint: folder of the checkpoint, which holds its config too.
      data_dir: where the dataset is; None is where the config says.

    Attributes:
      checkpoint: the folder.
      config: what it was trained with.
      task: made from the config.
      variables: "params" and "batch_stats", on all devices.

    Raises:
      InputError: not a checkpoint, or a damaged one.
    """

    def __init__(self, checkpoint: Path, data_dir: str | None = None):
        self.checkpoint = checkpoint
        variables, config = restore_variables(checkpoint)
        self.config = ConfigDict(config)
        if data_dir is not None:
            self.config.data.data_dir = data_dir
        self.task = make_task(self.config)
        self._mesh = make_mesh()
        self.variables = jax.device_put(variables, replicated(self._mesh))
        self._eval_step = make_eval_step(self.task, self._mesh)

    def evaluate(self, split: str) -> dict[str, float]:
        """Returns the task's metrics over one split."""
        return evaluate(self.task, self.variables, split, self._eval_step, self._mesh)


def evaluate_and_report(
    *,
    workdir: str | None = None,
    checkpoint: str | None = None,
    which: str = "latest",
    split: str | None = None,
    data_dir: str | None = None,
    output: str | None = None,
) -> dict[str, float]:
    """Evaluates one checkpoint, prints its metrics and writes them as JSON.

    Args:
      workdir: a run's folder, of which `which` ("latest" or "best") is evaluated.
      checkpoint: folder of one checkpoint instead.
      split: what to evaluate on; None is the config's evaluation split.
      data_dir: where the dataset is; None is where the config says.
      output: JSON file; None is metrics.json in the run's folder.

    Returns:
      What was written: the task's metrics with "split" and "checkpoint".

    Raises:
      InputError: no such run, checkpoint, split or dataset, or not exactly one of `workdir` and
        `checkpoint`.
    """
    if (workdir is None) == (checkpoint is None):
        raise InputError("Give either --workdir=DIR or --checkpoint=DIR/checkpoints/STEP.")
    path = Path(checkpoint) if checkpoint else checkpoint_of(Path(workdir), which)
    # Of a run that goes on, another process may already see a newer one.
    path = Path(from_first(str(path)))
    trained = TrainedModel(path, data_dir)
    split = split or trained.task.eval_split
    metrics = trained.evaluate(split)
    record = {**metrics, "split": split, "checkpoint": str(path)}
    if not is_first():
        return record
    for key, value in metrics.items():
        name = key.replace("top", "top-")
        if key in trained.task.fractions:
            print(f"{split} {name} {100 * value:.2f} %")
        else:
            print(f"{split} {name} {value:,.6g}")
    if output is None and path.parent.name != "checkpoints":
        raise InputError(f"{path} is not in the workdir of a run: say where to write by --output.")
    target = Path(output) if output else path.parent.parent / "metrics.json"
    try:
        write_json(target, record)
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}): give another --output."
        ) from error
    print(f"written to {target}")
    return record


def checkpoint_of(workdir: Path, which: str) -> Path:
    """Returns the folder of a run's "latest" or "best" checkpoint.

    Raises:
      InputError: not the folder of a run, or no checkpoint in it yet.
    """
    best_metric = task_class(read_config(workdir)["task"]).best_metric
    return find_checkpoint(workdir / "checkpoints", which, best_metric)
