"""The CSV file of accuracies that sweeps append to, one row for each trained network.

Several sweeps may append to one file at the same time, and be killed while they do.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from absl import logging

from shift_jax.errors import InputError
from shift_jax.files import lock


class Result(NamedTuple):
    """One trained network.

    Attributes:
      model: of `shift_jax.list_models()`.
      expansion: E, None where the network has none.
      reduction: "" or, of a ResNet reduced to the size of the ShiftResNet of that expansion,
        "module" or "net".
      allocation: name of a shift allocation, "" for the paper's uniform one.
      seed: of the run.
      params: trained parameters, with the dataset's classes.
      macs: true multiply-accumulates of one image, with the dataset's classes.
      last_top1: test top-1 after the last epoch, in percent.
      best_top1: that of the best epoch, in percent.
      epochs: trained; the paper's recipe has 164.
      minutes: that the run took, compilation and evaluation included, of wall time on an
        accelerator and of CPU time on a CPU; of runs trained at the same time, each has an equal
        share.
      device: what it ran on.
      commit: of the code, with a "+" where that was changed; "one/another" of a run that went on
        with other code than it began with.
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


_HEADER = ",".join(Result._fields) + "\n"
WRONG_PATH = (
    PermissionError,
    FileExistsError,
    FileNotFoundError,
    IsADirectoryError,
    NotADirectoryError,
)
"""Errors of a path that cannot be used. A full disk, in contrast, is not the caller's mistake."""


def read_results(path: str | os.PathLike[str]) -> list[Result]:
    """Returns the rows of a results file, [] where there is none.

    A last line without an end, which a writer that was killed has left or one that is at work is
    about to complete, is not a row yet.

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
            f"{path} is no table of results (not UTF-8): name another file or restore that one."
        ) from error
    _check_header(path, text)
    rows = csv.reader(text.split("\n")[1:])
    return [_parse(path, rows.line_num + 1, cells) for cells in rows if cells]


def append_result(path: str | os.PathLike[str], result: Result) -> None:
    """Adds one row as `append_results` does."""
    append_results(path, [result])


def append_results(path: str | os.PathLike[str], results: Sequence[Result]) -> None:
    """Adds rows, all or none, which are on the disk when this returns; makes the file if needed.

    Without rows it makes sure that some can be added later. A lock on the file `.NAME.lock` beside
    it keeps other writers waiting meanwhile. What a writer that was killed has left of a row is
    removed, with a warning.

    Raises:
      InputError: the file cannot be written, or is another table.
    """
    path = Path(path)
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    for result in results:
        writer.writerow([_text(*field) for field in result._asdict().items()])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Beside it and not the file itself: a file that someone replaced would have another lock.
        beside = path.with_name(f".{path.name}.lock")
        with lock(beside, wait=True), path.open("a+b", buffering=0) as file:
            _drop_torn_line(path, file)
            end = file.seek(0, os.SEEK_END)
            file.seek(0)
            _check_header(path, file.readline().decode(errors="replace"))
            _append(file, end, ("" if end else _HEADER) + rows.getvalue())
    except WRONG_PATH as error:
        raise _unusable(path, error) from error


def _append(file: BinaryIO, end: int, text: str) -> None:
    # Nearly always in one piece, so that a reader sees all or nothing of it.
    data = text.encode()
    try:
        while data:
            data = data[file.write(data) :]
        os.fsync(file.fileno())
    except OSError:  # Such as a full disk.
        file.truncate(end)
        raise


def _text(name: str, value: object) -> str:
    if not isinstance(value, float):
        return "" if value is None else str(value)
    # Of 10,000 test images two decimals are exact. By E, however, runs are told apart.
    text = repr(value) if name == "expansion" else f"{value:.4f}".rstrip("0")
    return text.removesuffix(".0").removesuffix(".")


def _parse(path: Path, line: int, cells: list[str]) -> Result:
    try:
        values = dict(zip(Result._fields, cells, strict=True))
        return Result(
            model=values["model"],
            expansion=float(values["expansion"]) if values["expansion"] else None,
            reduction=values["reduction"],
            allocation=values["allocation"],
            seed=int(values["seed"]),
            params=int(values["params"]),
            macs=int(values["macs"]),
            **{
                name: float(values[name])
                for name in ("last_top1", "best_top1", "epochs", "minutes")
            },
            device=values["device"],
            commit=values["commit"],
        )
    except ValueError as error:
        raise InputError(
            f"Line {line} of {path} is no result ({error}): mend or remove it."
        ) from error


def _check_header(path: Path, text: str) -> None:
    """Raises InputError unless `text`, where there is any, begins with the columns."""
    if text and not text.startswith(_HEADER):
        raise InputError(
            f"{path} is no table of results: its first line is not {_HEADER.strip()}; name another "
            "file."
        )


def _drop_torn_line(path: Path, file: BinaryIO) -> None:
    file.seek(0)
    content = file.read()
    torn = content[content.rfind(b"\n") + 1 :]
    if torn:
        file.truncate(len(content) - len(torn))
        logging.warning(
            "The last line of %s, %r, was cut off when its writer was killed, and is removed.",
            *(path, torn.decode(errors="replace")),
        )


def _unusable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path} cannot be used ({error.strerror}): name another file.")
