"""`history.jsonl`, the metrics of a run."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from shift_jax.errors import InputError
from shift_jax.files import errors_naming, replaced_file


class History:
    """Writes `history.jsonl`, with one line for each step and for each evaluation.

    A line is {"step": …, "kind": "train", "loss": …, "top1": …} or {"step": …, "kind": "eval",
    "split": …, …}. The file holds only what led to the present state: resuming at a step drops the
    lines of later steps.

    Args:
      workdir: the run's folder.
      start_step: step from which the run continues.
      evaluate_again: whether to drop the evaluation at `start_step` too.
    """

    def __init__(self, workdir: Path, start_step: int, *, evaluate_again: bool = False):
        self._path = workdir / "history.jsonl"
        kept = [
            record
            for record in read_history(workdir)
            if record["step"] < start_step
            or (record["step"] == start_step and not (evaluate_again and record["kind"] == "eval"))
        ]
        with replaced_file(self._path) as temporary:
            temporary.write_text("".join(json.dumps(record) + "\n" for record in kept))
        self._pending: list[str] = []

    def add(self, step: int, kind: str, **values: Any) -> None:
        """Records one line; `flush` writes it."""
        self._pending.append(json.dumps({"step": step, "kind": kind, **values}) + "\n")

    def flush(self) -> None:
        """Appends the recorded lines to the file."""
        with errors_naming(self._path), self._path.open("a") as file:
            file.write("".join(self._pending))
            file.flush()
            os.fsync(file.fileno())
        self._pending.clear()


def read_history(workdir: Path) -> list[dict]:
    """Returns the lines of a run's history, without a last line that a crash cut off.

    Raises:
      InputError: another line is damaged; writing would lose those after it.
    """
    path = workdir / "history.jsonl"
    records = []
    lines = path.read_bytes().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if _is_record(record):
            records.append(record)
        elif number < len(lines):
            raise InputError(
                f"Line {number} of {path} is damaged, expected the metrics of a step or of an "
                "evaluation: restore the file, or remove the line."
            )
    return records


def _is_record(value: Any) -> bool:
    if not isinstance(value, dict) or value.get("kind") not in ("train", "eval"):
        return False
    if type(value.get("step")) is not int or not 0 <= value["step"] < 1 << 63:
        return False
    metrics = (each for name, each in value.items() if name not in ("kind", "split"))
    return all(type(each) in (int, float) and not abs(each) >= 1 << 1000 for each in metrics)
