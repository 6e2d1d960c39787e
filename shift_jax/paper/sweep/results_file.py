"""The CSV files of accuracies, one row for each trained network.

Sweeps append to results/cifar100.csv and results/cifar10.csv; trials of recipes have the same
columns and go to results/trials.csv. Several processes may append to one file at the same time, and
be killed while they do.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from absl import logging

from shift_jax.errors import InputError
from shift_jax.files import lock, replaced_file
from shift_jax.paper.tables.published import network_name

AUTHORS = "authors"
"""The recipe of the authors' code, in its own proportions where the schedule is shorter."""

FIXED = "fixed"
"""Shifts whose offsets are not trained."""


class Result(NamedTuple):
    """One trained network.

    Attributes:
      model: one of `shift_jax.list_models()`.
      expansion: E, or None if the network has none.
      reduction: "module" or "net" for a ResNet reduced to the size of the ShiftResNet of that
        expansion, else "".
      allocation: the name of a shift allocation, "" for the paper's uniform one.
      seed: the seed of the run.
      params: the number of trained parameters, with the dataset's classes.
      macs: true multiply-accumulates of one image, with the dataset's classes.
      last_top1: test top-1 after the last epoch, in percent.
      best_top1: test top-1 of the best epoch, in percent.
      epochs: the length of the schedule; the paper's recipe has 164.
      minutes: the length of the run, compilation and evaluation included: wall time on an
        accelerator, CPU time on a CPU. Runs trained at the same time share it equally.
      device: the machine.
      commit: the code, with a "+" if it had uncommitted changes; "one/another" if the run was
        resumed with other code.
      recipe: how the network was trained: `AUTHORS`, or another recipe such as "short".
      shift: `FIXED`, or what was trained of the shifts' offsets: "active" or "sparse".
    """

    model: str
    expansion: float | None
    reduction: str
    allocation: str
    seed: int
    params: int
    macs: int
    last_top1: float
    best_top1: float
    epochs: float
    minutes: float
    device: str
    commit: str
    recipe: str = AUTHORS
    shift: str = FIXED

    @property
    def network(self) -> str:
        """The network's name, such as "resnet20-module-1"; see `published.network_name`."""
        return network_name(self.model, self.expansion, self.reduction, self.allocation)

    @property
    def is_controlled(self) -> bool:
        """Whether the run may be compared with the paper's: the same recipe and fixed shifts."""
        return self.recipe == AUTHORS and self.shift == FIXED


_HEADER = ",".join(Result._fields) + "\n"
# Files written before there were other recipes and shifts lack the columns that have defaults.
_OLD_FIELDS = tuple(name for name in Result._fields if name not in Result._field_defaults)
_OLD_HEADER = ",".join(_OLD_FIELDS) + "\n"
WRONG_PATH = (
    PermissionError,
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
)
"""Errors of a path that cannot be used. A full disk, in contrast, is not the caller's mistake."""


def read_results(path: str | os.PathLike[str]) -> list[Result]:
    """Returns the rows of a results file, or [] if the file does not exist.

    A last line without a newline is not a row yet: its writer was killed or is still writing.
    Files without the columns `recipe` and `shift` hold runs of the authors' recipe with fixed
    shifts.

    Raises:
      InputError: the file cannot be read, is another table, or has a damaged row.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unusable(path, error) from error
    whole = content[: content.rfind(b"\n") + 1]
    try:
        text = whole.decode()
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path} is not a results file (not UTF-8): name another file or restore that one."
        ) from error
    fields = _fields_of(path, text)
    rows = csv.reader(text.split("\n")[1:])
    return [_parse(path, rows.line_num + 1, fields, cells) for cells in rows if cells]


def append_results(path: str | os.PathLike[str], results: Sequence[Result]) -> None:
    """Adds rows, all or none, and returns once they are on the disk; creates a missing file.

    Without rows it checks that some can be added later. Other writers wait for a lock on the file
    `.NAME.lock` beside it. A row that a killed writer left incomplete is removed with a warning,
    and a file without the columns `recipe` and `shift` gets them.

    Raises:
      InputError: the file cannot be written, is another table, or is an older one with a damaged
        row.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Beside it and not the file itself: a file that someone replaced would have another lock.
        with lock(path.with_name(f".{path.name}.lock"), wait=True):
            with path.open("a+b", buffering=0) as file:
                if _drop_torn_line(path, file) == Result._fields:
                    _append(file, _csv(results))
                    return
            old = read_results(path)
            with replaced_file(path) as temporary:
                temporary.write_text(_HEADER + _csv([*old, *results]))
    except WRONG_PATH as error:
        raise _unusable(path, error) from error


def _append(file: BinaryIO, text: str) -> None:
    end = file.seek(0, os.SEEK_END)
    data = ("" if end else _HEADER).encode() + text.encode()
    # Nearly always in one piece, so that a reader sees all or nothing of it.
    try:
        while data:
            data = data[file.write(data) :]
        os.fsync(file.fileno())
    except OSError:  # Such as a full disk.
        file.truncate(end)
        raise


def _csv(results: Sequence[Result]) -> str:
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for result in results:
        writer.writerow([_text(*field) for field in result._asdict().items()])
    return rows.getvalue()


def _text(name: str, value: object) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    # Of 10,000 test images two decimals are exact. E, however, identifies a run.
    text = repr(value) if name == "expansion" else f"{value:.4f}".rstrip("0")
    return text.removesuffix(".0").removesuffix(".")


def _parse(path: Path, line: int, fields: Sequence[str], cells: Sequence[str]) -> Result:
    try:
        values: dict[str, Any] = dict(zip(fields, cells, strict=True))
        values["expansion"] = float(values["expansion"]) if values["expansion"] else None
        for name in ("seed", "params", "macs"):
            values[name] = int(values[name])
        for name in ("last_top1", "best_top1", "epochs", "minutes"):
            values[name] = float(values[name])
        return Result(**values)
    except ValueError as error:
        raise InputError(
            f"Line {line} of {path} is not a result ({error}): fix or remove it."
        ) from error


def _fields_of(path: Path, text: str) -> tuple[str, ...]:
    """The columns of a file that begins with `text`; InputError unless it is a table of results."""
    if not text or text.startswith(_HEADER):
        return Result._fields
    if text.startswith(_OLD_HEADER):
        return _OLD_FIELDS
    raise InputError(
        f"{path} is not a results file: expected the first line {_HEADER.strip()}; name another "
        "file."
    )


def _drop_torn_line(path: Path, file: BinaryIO) -> tuple[str, ...]:
    """Removes what a killed writer left of a line; returns the columns of the file."""
    file.seek(0)
    content = file.read()
    end = content.rfind(b"\n") + 1
    torn = content[end:]
    is_torn_header = not end and _HEADER.encode().startswith(torn)
    fields = _fields_of(path, "" if is_torn_header else content.decode(errors="replace"))
    if torn:
        file.truncate(len(content) - len(torn))
        logging.warning(
            "Removing the last line of %s, %r: its writer was killed before it was complete.",
            path,
            torn.decode(errors="replace"),
        )
    return fields


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be used ({error.strerror}): name another file.")
