"""Which examples a run learns from: its folder and its checkpoints say so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from shift_jax.data import Fingerprint, class_difference
from shift_jax.errors import InputError
from shift_jax.training.runs.workdir import write_json

_FILE = "data.json"


def is_recorded_data(workdir: Path, data: Fingerprint, *, allow_changed: bool = False) -> bool:
    """Whether the run in `workdir` began with examples that `data` identifies; False if it is new.

    Args:
      workdir: the run's folder.
      data: identifies the training examples.
      allow_changed: whether the run may go on with examples of the same classes that have become
        more.

    Raises:
      InputError: it began with others; the sentence says how they differ.
    """
    try:
        before = fingerprint_from_json(json.loads((workdir / _FILE).read_text()))
    except FileNotFoundError:
        return False  # A new run, or one of an older version.
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{workdir / _FILE} is damaged ({error}): restore it, or delete it to resume without a "
            "check of the training data."
        ) from error
    if before == data:
        return True
    began = f"The training data are no longer those that {workdir} began with: "
    advice = "; restore them, or choose another --workdir"
    if before.class_names != data.class_names:
        difference = class_difference(before.class_names or (), data.class_names or ())
        raise InputError(f"{began}{difference}{advice}.")
    if allow_changed and data.num_examples > before.num_examples:
        return True
    if data.num_examples == before.num_examples:
        difference = "the names or sizes of some files changed"
    else:
        difference = f"{before.num_examples:,} examples there and {data.num_examples:,} here"
    if data.num_examples > before.num_examples:
        advice += ", or resume on the larger set by --allow_changed_data"
    raise InputError(f"{began}{difference}{advice}.")


def record_data(workdir: Path, data: Fingerprint) -> None:
    """Writes what identifies the training examples into a run's folder."""
    write_json(workdir / _FILE, data._asdict())


def fingerprint_from_json(values: Mapping[str, Any]) -> Fingerprint:
    """Returns a fingerprint from the JSON of its `_asdict`."""
    names = values["class_names"]
    return Fingerprint(
        None if names is None else tuple(names), values["num_examples"], values["files"]
    )


def learned_class_names(manifest: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Returns the names of the classes by a checkpoint's manifest; None if it has none."""
    data = manifest.get("training", {}).get("data")  # Older versions wrote neither.
    return fingerprint_from_json(data).class_names if data else None
