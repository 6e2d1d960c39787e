"""Evaluation that counts every example exactly once, on any number of devices."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

from shift_jax.config import FacesConfig, from_dict, override
from shift_jax.errors import InputError
from shift_jax.files import as_input_error
from shift_jax.tasks import Task, make_task
from shift_jax.training.mesh import make_mesh, replicated, to_devices
from shift_jax.training.processes.collectives import broadcast_from_process_0, is_first
from shift_jax.training.processes.stopping import EvaluationStoppedError, StopRequest
from shift_jax.training.runs.checkpoint_files import read_manifest, restore_variables
from shift_jax.training.runs.selection import checkpoint_of
from shift_jax.training.runs.workdir import write_json
from shift_jax.training.step import make_eval_step
from shift_jax.weights.shipped import WeightRecord, read_weights, weights_named


def collect(
    task: Task,
    variables: dict,
    split: str,
    eval_step: Callable,
    mesh: Mesh,
    stop: StopRequest | None = None,
) -> dict[str, float | np.ndarray]:
    """Returns the task's outputs over one whole split: sums, and arrays joined along axis 0.

    Args:
      task: yields masked batches of constant size and what to compute of each.
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
    rows: dict[str, list[np.ndarray]] = defaultdict(list)

    def add(outputs) -> None:
        if stop is not None:
            outputs = stop.listen(outputs)
            if stop.is_agreed:
                raise EvaluationStoppedError
        for key, value in outputs.items():
            if value.ndim:
                rows[key].append(np.asarray(value))
            else:
                # As Python floats: float32 cannot count past 2^24 examples.
                sums[key] += float(value)

    running: dict = {}
    with contextlib.closing(task.eval_batches(split, batch_size)) as batches:
        marked = batches if stop is None else stop.mark(batches)
        for batch in to_devices(marked, mesh):
            finished, running = running, eval_step(variables, batch)
            add(finished)
        add(running)
    return {**sums, **{key: np.concatenate(parts) for key, parts in rows.items()}}


class TrainedModel:
    """One checkpoint, or weights that come with the package, with its task, ready to evaluate.

    Args:
      source: folder of the checkpoint, which holds its config too; or the record of the weights.
      data_dir: where the dataset is; None is where the config says.
      pairs_file: of a task that compares pairs, the file that names them.
      overrides: other fields of the config, such as {"verification.num_pairs": 1000}.

    Attributes:
      config: what it was trained with.
      metrics: those of a checkpoint's evaluation in training, empty where there was none.
      task: made from the config.
      variables: "params" and "batch_stats", on all devices.

    Raises:
      InputError: not a checkpoint, or a damaged one.
    """

    def __init__(
        self,
        source: Path | WeightRecord,
        data_dir: str | os.PathLike[str] | None = None,
        pairs_file: str | os.PathLike[str] | None = None,
        overrides: Mapping[str, object] | None = None,
    ):
        self.metrics: dict[str, float] = {}
        if isinstance(source, WeightRecord):
            name = source.name
            variables, config = read_weights(source)
        else:
            name = str(source)
            variables, config = restore_variables(source)
            self.metrics = read_manifest(source)["metrics"]
        config = from_dict(config)
        changes: dict[str, object] = {}
        has_pairs = isinstance(config, FacesConfig)
        if data_dir is not None:
            section = "verification" if has_pairs else "data"
            changes[f"{section}.data_dir"] = os.fspath(data_dir)
        if pairs_file is not None:
            if not has_pairs:
                raise InputError(
                    f"{name} is of the task {config.task!r}, which compares no pairs: leave out "
                    "--pairs_file."
                )
            changes["verification.pairs_file"] = os.fspath(pairs_file)
        self.config = override(config, {**changes, **(overrides or {})})
        if not self.config.task:
            raise InputError(
                f"{name} has imported weights of {self.config.model.name}, of which it is "
                "not known what they were trained for: eval.py evaluates imported classifiers only."
            )
        self.task = make_task(self.config)
        self._mesh = make_mesh()
        self.variables = jax.device_put(variables, replicated(self._mesh))
        self._eval_step = make_eval_step(self.task, self._mesh)

    def evaluate(self, split: str) -> dict[str, float]:
        """Returns the task's metrics over one split."""
        return self.task.summarize(split, self.outputs(split))

    def outputs(self, split: str) -> dict[str, float | np.ndarray]:
        """Returns what `collect` does over one split."""
        return collect(self.task, self.variables, split, self._eval_step, self._mesh)


def evaluate_and_report(
    *,
    workdir: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    weights: str | None = None,
    which: str = "latest",
    split: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    pairs_file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, object] | None = None,
    output: str | os.PathLike[str] | None = None,
) -> dict:
    """Evaluates one checkpoint or shipped network, prints its metrics and writes them as JSON.

    Args:
      workdir: a run's folder, of which `which` ("latest" or "best") is evaluated.
      checkpoint: folder of one checkpoint instead.
      weights: name of weights that come with the package instead.
      split: what to evaluate on; None is the config's evaluation split.
      data_dir, pairs_file: see `TrainedModel`.
      overrides: see `TrainedModel`.
      output: JSON file, beside which pictures go; None is metrics.json in the run's folder, or of
        shipped weights in runs/NAME; of another split than the config's metrics_SPLIT.json.

    Returns:
      What was written: the task's report with "split" and "checkpoint" or "weights"; in other
      processes than the first, nothing.

    Raises:
      InputError: no such run, checkpoint, weights, split or dataset, or not exactly one of
        `workdir`, `checkpoint` and `weights`.
    """
    if [workdir, checkpoint, weights].count(None) != 2:
        raise InputError(
            "Give one of --workdir=DIR, --checkpoint=DIR/checkpoints/STEP and --weights=NAME."
        )
    if weights is not None:
        source, folder = weights_named(weights), Path("runs") / weights
        origin = {"weights": weights}
    else:
        source = Path(checkpoint) if checkpoint else checkpoint_of(Path(workdir), which)
        # Of a run that goes on, another process may already see a newer one.
        source = Path(broadcast_from_process_0(str(source)))
        folder = source.parent.parent
        origin = {"checkpoint": str(source)}
        if output is None and source.parent.name != "checkpoints":
            raise InputError(
                f"{source} is not in the workdir of a run: say where to write by --output."
            )
    trained = TrainedModel(source, data_dir, pairs_file, overrides)
    name = "metrics.json"
    if split not in (None, trained.task.eval_split):
        name = f"metrics_{re.sub(r'[^A-Za-z0-9]+', '_', split).strip('_')}.json"
    target = Path(output) if output else folder / name
    split = split or trained.task.eval_split
    outputs = trained.outputs(split)
    if not is_first():
        return {}
    advice = "give another --output"
    with as_input_error(target, advice):
        if weights is not None and output is None:
            folder.mkdir(parents=True, exist_ok=True)
        text, record = trained.task.report(split, outputs, target)
    print(text)
    record = {**record, "split": split, **origin}
    with as_input_error(target, advice):
        write_json(target, record)
    print(f"written to {target}")
    return record
