"""The report of an alignment: the result for each photo, which lets a later run continue."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import errno
import io
import os
import pathlib
from collections.abc import Iterable, Iterator

from shift_jax.errors import InputError
from shift_jax.files import replaced_file

FILE_NAME = "align_report.csv"

ALIGNED, CROPPED, NO_FACE, UNREADABLE = "aligned", "cropped", "no_face", "unreadable"

# The errors of a wrong folder, rather than of a full or broken disk.
_BAD_FOLDER = (
    errno.EACCES,
    errno.EEXIST,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
)


@dataclasses.dataclass(frozen=True)
class Row:
    """The result for one photo. All fields are strings, as in the file."""

    path: str
    """Path of the photo in SRC."""
    status: str
    """"aligned"; "no_face"; "cropped" to its center, since it has no face; or "unreadable"."""
    output: str = ""
    """Path of the aligned face in DST."""
    faces: str = "0"
    """Number of faces in the photo."""
    confidence: str = ""
    """MTCNN's confidence in the chosen face, 0..1."""
    eye_distance: str = ""
    """Distance between the eyes in pixels of the photo."""
    image_size: str = ""
    face: str = ""
    """Which of several faces to choose."""
    min_confidence: str = ""
    reason: str = ""
    """Why the photo is unreadable."""


_COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


class Report:
    """DST/align_report.csv, to which each photo appends a row.

    Args:
      folder: DST.

    Attributes:
      rows: Maps the path of each photo to its newest row.

    Raises:
      InputError: the file exists, but is not such a report or cannot be read.
    """

    def __init__(self, folder: pathlib.Path):
        self._path = folder / FILE_NAME
        with as_bad_folder(folder):
            self.rows = {row.path: row for row in self._read()}

    def rewrite(self, rows: Iterable[Row]) -> None:
        """Replaces all rows, and creates the folder if it is missing.

        Raises:
          InputError: the folder cannot be created or written.
        """
        self.rows = {row.path: row for row in rows}
        text = _line(_COLUMNS) + "".join(map(_as_line, self.rows.values()))
        with as_bad_folder(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replaced_file(self._path) as temporary:
                temporary.write_bytes(os.fsencode(text))

    def append(self, row: Row) -> None:
        """Adds the row of one photo, which replaces an earlier one."""
        self.rows[row.path] = row
        with open(self._path, "ab") as file:
            file.write(os.fsencode(_as_line(row)))

    def _read(self) -> list[Row]:
        if not self._path.exists():
            return []
        text = os.fsdecode(self._path.read_bytes())
        lines = csv.reader(io.StringIO(text, newline=""))
        if next(lines, None) != list(_COLUMNS):
            raise InputError(
                f"{self._path} is not a report of an alignment: choose another folder."
            )
        # A killed run may have left an incomplete line, whose photo is aligned again.
        return [Row(*fields) for fields in lines if len(fields) == len(_COLUMNS)]


@contextlib.contextmanager
def as_bad_folder(folder: pathlib.Path) -> Iterator[None]:
    """Converts system errors that mean that DST is unusable to `InputError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _BAD_FOLDER:
            raise
        where = "" if error.filename in (None, str(folder)) else f": {error.filename}"
        raise InputError(
            f"{folder} cannot be created or written ({error.strerror}{where}): choose another "
            "folder for the aligned faces."
        ) from error


def _as_line(row: Row) -> str:
    return _line(dataclasses.astuple(row))


def _line(fields: Iterable[str]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerow(fields)
    return file.getvalue()
