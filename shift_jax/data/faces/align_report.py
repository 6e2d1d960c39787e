"""The report of an alignment: what became of each photo, and what a later run need not do again."""

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

# Of a folder that is named wrongly: a disk that is full or broken is another matter.
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
    """What became of one photo. All texts, as they are in the file."""

    path: str
    """Of the photo, in SRC."""
    status: str
    """aligned; no_face; cropped, its centre, since it has no face; or unreadable."""
    output: str = ""
    """Of the aligned face, in DST."""
    faces: str = "0"
    """How many the photo has."""
    confidence: str = ""
    """MTCNN's in the chosen face, 0 .. 1."""
    eye_distance: str = ""
    """In pixels of the photo."""
    image_size: str = ""
    face: str = ""
    """Which face was to be chosen."""
    min_confidence: str = ""
    reason: str = ""
    """Why the photo can not be read."""


_COLUMNS = tuple(field.name for field in dataclasses.fields(Row))


class Report:
    """DST/align_report.csv, appended to photo by photo.

    Args:
      folder: DST.

    Attributes:
      rows: the newest row of each photo, by its path.

    Raises:
      InputError: a file of that name is there that is no such report, or can not be read.
    """

    def __init__(self, folder: pathlib.Path):
        self._path = folder / FILE_NAME
        with as_bad_folder(folder):
            self.rows = {row.path: row for row in self._read()}

    def rewrite(self, rows: Iterable[Row]) -> None:
        """Makes these the only rows, and the folder where it is missing.

        Raises:
          InputError: the folder can not be made or written.
        """
        self.rows = {row.path: row for row in rows}
        text = _line(_COLUMNS) + "".join(map(_as_line, self.rows.values()))
        with as_bad_folder(self._path.parent):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with replaced_file(self._path) as temporary:
                temporary.write_bytes(os.fsencode(text))

    def append(self, row: Row) -> None:
        """Adds the row of one photo, in place of an earlier one."""
        self.rows[row.path] = row
        with open(self._path, "ab") as file:
            file.write(os.fsencode(_as_line(row)))

    def _read(self) -> list[Row]:
        if not self._path.exists():
            return []
        text = os.fsdecode(self._path.read_bytes())
        lines = csv.reader(io.StringIO(text, newline=""))
        if next(lines, None) != list(_COLUMNS):
            raise InputError(f"{self._path} is no report of an alignment: choose another folder.")
        # A run that was killed may have left half a line: that photo's turn comes again.
        return [Row(*fields) for fields in lines if len(fields) == len(_COLUMNS)]


@contextlib.contextmanager
def as_bad_folder(folder: pathlib.Path) -> Iterator[None]:
    """Makes an `InputError` of the system's errors that mean that DST can not be used."""
    try:
        yield
    except OSError as error:
        if error.errno not in _BAD_FOLDER:
            raise
        where = "" if error.filename in (None, str(folder)) else f": {error.filename}"
        raise InputError(
            f"{folder} can not be made or written ({error.strerror}{where}): choose another folder "
            "for the aligned faces."
        ) from error


def _as_line(row: Row) -> str:
    return _line(dataclasses.astuple(row))


def _line(fields: Iterable[str]) -> str:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerow(fields)
    return file.getvalue()
