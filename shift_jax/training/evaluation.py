"""Evaluation that counts every example exactly once, on any number of devices."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import jax
import numpy as np
from jax.sharding import Mesh

from shift_jax.config import FacesConfig, from_dict, override, with_absolute_paths
from shift_jax.errors import InputError
from shift_jax.files import as_input_error
from shift_jax.models.classifier import class_count
from shift_jax.tasks import Task, make_task
from shift_jax.tasks.classification import Classification, LearnedClasses
from shift_jax.training.mesh import make_mesh, replicated, to_devices
from shift_jax.training.processes.collectives import broadcast_from_process_0, is_first
from shift_jax.training.processes.stopping import EvaluationStoppedError, StopRequest
from shift_jax.training.runs.checkpoint_files import read_manifest, restore_variables
from shift_jax.training.runs.selection import checkpoint_of
from shift_jax.training.runs.trained_data import learned_class_names
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
      task: yields masked batches of constant size, and says what to compute from them.
      variables: variables of the network, on the host or on devices in any sharding.
      split: name of the split.
      eval_step: the result of `make_eval_step`.
      mesh: the devices.
      stop: a request to stop, checked after each batch.

    Raises:
      InputError: the split cannot be read.
      EvaluationStoppedError: a stop was requested.
    """
    # All batches divide over the devices; the last one is padded anyway.
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
                # Python floats, because float32 cannot count past 2^24 examples.
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
    """A checkpoint, or weights that ship with the package, and its task, ready to evaluate.

    Args:
      source: folder of the checkpoint, which holds its config too, or the record of the weights.
      data_dir: folder of the dataset; None means the config's.
      pairs_file: file that names the pairs, for a task that compares pairs.
      overrides: other values of fields of the config, such as {"verification.num_pairs": 1000}.
      allow_subset: whether a split may lack some of the classes that the network learned, and have
        others, whose examples are left out.

    Attributes:
      config: the experiment, with the overrides.
      metrics: metrics of the checkpoint's evaluation during training; empty if there was none.
      task: the task of the experiment.
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
        *,
        allow_subset: bool = False,
    ):
        self.metrics: dict[str, float] = {}
        if isinstance(source, WeightRecord):
            name = source.name
            variables, config = read_weights(source)
            class_names = source.class_names or None
        else:
            name = str(source)
            variables, config = restore_variables(source)
            manifest = read_manifest(source)
            self.metrics, class_names = manifest["metrics"], learned_class_names(manifest)
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
        self.config = with_absolute_paths(override(config, {**changes, **(overrides or {})}))
        if not self.config.task:
            raise InputError(
                f"{name} has imported weights of {self.config.model.name} for an unknown task: "
                "eval.py evaluates imported classifiers only."
            )
        self.task = make_task(self.config)
        if isinstance(self.task, Classification):
            learned = LearnedClasses(class_count(variables), class_names, allow_subset)
            self.task.evaluate_as(learned)
        elif allow_subset:
            raise InputError(f"{name} is not a classifier: leave out --allow_subset.")
        self._mesh = make_mesh()
        self.variables = jax.device_put(variables, replicated(self._mesh))
        self._eval_step = make_eval_step(self.task, self._mesh)

    def evaluate(self, split: str) -> dict[str, float]:
        """Returns the task's metrics on one split."""
        return self.task.summarize(split, self.outputs(split))

    def outputs(self, split: str) -> dict[str, float | np.ndarray]:
        """Returns what `collect` returns for one split."""
        return collect(self.task, self.variables, split, self._eval_step, self._mesh)


def evaluate_and_report(
    *,
    workdir: str | os.PathLike[str] | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    weights: str | None = None,
    which: Literal["latest", "best"] = "latest",
    split: str | None = None,
    data_dir: str | os.PathLike[str] | None = None,
    pairs_file: str | os.PathLike[str] | None = None,
    overrides: Mapping[str, object] | None = None,
    output: str | os.PathLike[str] | None = None,
    allow_subset: bool = False,
) -> dict:
    """Evaluates a checkpoint or a shipped network, prints its metrics and writes them as JSON.

    Args:
      workdir: folder of a run.
      checkpoint: folder of one checkpoint instead.
      weights: name of weights that ship with the package instead.
      which: "latest" or "best", the checkpoint of the run to evaluate.
      split: split to evaluate on; None means the config's evaluation split.
      data_dir, pairs_file, overrides, allow_subset: see `TrainedModel`.
      output: JSON file, which gets its pictures beside it. None means metrics.json, or
        metrics_SPLIT.json for another split than the config's, in the run's folder or, for shipped
        weights, in runs/NAME.

    Returns:
      The content of the file: the task's report with "split" and "checkpoint" or "weights"; empty
      in processes other than process 0.

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
        source = Path(checkpoint) if checkpoint else checkpoint_of(Path(workdir or ""), which)
        # While the run is training, another process may already see a newer one.
        source = Path(broadcast_from_process_0(str(source)))
        folder = source.parent.parent
        origin = {"checkpoint": str(source)}
        if output is None and source.parent.name != "checkpoints":
            raise InputError(
                f"{source} is not in the workdir of a run: name the file to write by --output."
            )
    trained = TrainedModel(source, data_dir, pairs_file, overrides, allow_subset=allow_subset)
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
