"""The pairs of faces that Labeled Faces in the Wild (LFW) and YouTube Faces (YTF) compare.

Section 3.3 of the paper (Table 8) tests on 6,000 pairs of images of LFW and 5,000 pairs of videos
of YTF.
"""

from __future__ import annotations

import functools
import os
import pathlib
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from shift_jax import data
from shift_jax.errors import InputError, positive_int
from shift_jax.tasks.pairs import Pairs

_SPLITS_COLUMNS = ("split", "first", "second", "same")


class _Row(NamedTuple):
    """One pair of a protocol: the names of two images or videos, on this line of its file."""

    first: str
    second: str
    same: bool
    fold: int
    line: int


def lfw_pairs(
    pairs_file: str | os.PathLike[str],
    root: str | os.PathLike[str],
) -> Pairs:
    """Reads the pairs of LFW's View 2 (`pairs.txt`) or of another set in its format.

    The first line gives the number of folds F and the number N of pairs of either kind in each. For
    each fold follow N lines `name i j`, images i and j of one person, and N lines `name i
    other_name j`, separated by tabs or spaces. Image i is `root/name/name_000i` with the extension
    of an image.

    Args:
      pairs_file: the text file.
      root: the folder with a folder for each person.

    Raises:
      InputError: a file that cannot be read or is not in this format, with the number of the line,
        or no pair whose images both exist. Single images may be missing: see `Pairs.missing`.
    """
    lines = _lines(pairs_file)
    header = re.fullmatch(r"\s*(\d{1,9})\s+(\d{1,9})\s*", lines[0])
    num_folds, half = map(int, header.groups()) if header else (0, 0)
    if not num_folds * half:
        raise InputError(
            f"Line 1 of {pairs_file} is {lines[0][:80]!r}, expected the numbers of folds and of "
            "pairs of either kind in each, such as '10 300': use pairs.txt of LFW's View 2."
        )
    expected = 2 * num_folds * half
    if len(lines) - 1 != expected:
        raise InputError(
            f"{pairs_file} has {len(lines) - 1:,} lines of pairs, expected {expected:,} after its "
            f"first line {lines[0].strip()!r}: download the whole file."
        )
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        fold, position = divmod(number - 2, 2 * half)
        same = position < half
        i_and_j = r"(\S+)\s+(\d{1,9})()\s+(\d{1,9})", r"(\S+)\s+(\d{1,9})\s+(\S+)\s+(\d{1,9})"
        pattern = i_and_j[0 if same else 1]
        match = re.fullmatch(pattern, line.strip())
        name, i, other, j = match.groups() if match else ("", "", "", "")
        # A damaged line may also pair an image with itself, or a person as two.
        if not match or (i == j if same else name == other):
            raise InputError(
                f"Line {number} of {pairs_file} is {line.strip()[:80]!r}, expected "
                f"'{'name i j' if same else 'name i other_name j'}': use an undamaged file."
            )
        rows.append(_Row(_lfw_name(name, i), _lfw_name(other or name, j), same, fold, number))

    images_in = _lister(root)

    @functools.cache
    def by_stem(person: str) -> dict[str, str]:
        # Of two files that differ only in the extension, the first by name counts.
        return {
            data.normalized(os.path.splitext(os.path.basename(path))[0]): path
            for path in reversed(images_in(person))
        }

    def find(name: str) -> list[str]:
        person, stem = name.split("/")
        found = by_stem(person).get(stem)
        return [found] if found else []

    return _look_up(
        rows,
        find,
        lambda row, first, second: (first, second),
        f"{root} has both images of none of the {len(rows):,} pairs in {pairs_file}, expected "
        f"{rows[0].first}.jpg and so on in it: name the folder that has a folder for each person.",
    )


def ytf_pairs(
    splits_file: str | os.PathLike[str],
    root: str | os.PathLike[str],
    seed: int,
    count: int = 100,
) -> Pairs:
    """Reads the pairs of videos of YouTube Faces (`splits.txt`, Wolf et al., CVPR 2011).

    The file has comma-separated columns, `split number, pair number, first name, second name, is
    same` with lines such as `1, 1, A_Person/1, A_Person/5, 1`. The words split, first, second and
    same in the first line identify the columns; other columns are ignored. The frames of a video
    are the images in `root/A_Person/1`. `Pairs.images` has only the frames that are drawn.

    Args:
      splits_file: the text file.
      root: the folder with a folder for each person.
      seed: of the frames drawn for a pair, which also depend on the line of the pair and on the
        numbers of frames of both videos.
      count: pairs of frames for each pair of videos; the paper averages over 100.

    Raises:
      InputError: a file that cannot be read or is not in this format, with the number of the line,
        or no pair whose videos both have frames. Single videos may be missing: see
        `Pairs.missing`.
    """
    positive_int("count", count)
    lines = _lines(splits_file)
    header = [name.strip().lower() for name in lines[0].split(",")]
    found = [[k for k, name in enumerate(header) if word in name] for word in _SPLITS_COLUMNS]
    if any(len(places) != 1 for places in found):
        raise InputError(
            f"Line 1 of {splits_file} is {lines[0].strip()[:80]!r}, expected names of columns, one "
            f"with each of the words {', '.join(_SPLITS_COLUMNS)}: use splits.txt of YouTube Faces."
        )
    if len(lines) == 1:
        raise InputError(f"{splits_file} ends after its first line: download the whole file.")
    columns = [place for (place,) in found]
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        values = [value.strip() for value in line.split(",")]
        complete = len(values) == len(header)
        row = ",".join(values[column] for column in columns) if complete else ""
        match = re.fullmatch(r"(\d{1,9}),([^/,]+/[^/,]+),([^/,]+/[^/,]+),([01])", row)
        if not match:
            raise InputError(
                f"Line {number} of {splits_file} is {line.strip()[:80]!r}, expected the columns "
                f"{', '.join(header)!r} with videos such as A_Person/1 and 0 or 1 for different or "
                "same: use an undamaged file."
            )
        split, first, second, same = match.groups()
        rows.append(_Row(first, second, same == "1", int(split), number))

    def draw(row: _Row, first: list[str], second: list[str]) -> tuple[list[str], list[str]]:
        rng = np.random.default_rng([seed, row.line])
        places = frame_pairs(len(first), len(second), count, rng)
        return [first[i] for i in places[0]], [second[j] for j in places[1]]

    return _look_up(
        rows,
        _lister(root),
        draw,
        f"{root} has frames of both videos of none of the {len(rows):,} pairs in {splits_file}, "
        f"expected {rows[0].first}/*.jpg and so on in it: name the folder that has a folder for "
        "each person.",
    )


def frame_pairs(
    num_frames_a: int, num_frames_b: int, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draws pairs of frames of two videos, uniformly and independently; pairs may repeat.

    Returns:
      Positions in the first and in the second video, int64 [count] each.
    """
    return rng.integers(num_frames_a, size=count), rng.integers(num_frames_b, size=count)


def _lfw_name(person: str, number: str) -> str:
    return f"{person}/{person}_{int(number):04d}"


def _lines(path: str | os.PathLike[str]) -> list[str]:
    try:
        text = pathlib.Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): name the text file with the pairs."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not text, expected the text file with the pairs.") from error
    return data.normalized(text).rstrip().split("\n")


def _lister(root: str | os.PathLike[str]) -> Callable[[str], list[str]]:
    """Returns a function that lists the images in a folder below `root`, sorted.

    The function takes the path relative to `root`, with names in normal form C of Unicode; a
    missing folder has no images.
    """

    @functools.cache
    def subfolders(folder: str) -> dict[str, str]:
        return data.subfolders(folder) if os.path.isdir(folder) else {}

    def images_in(path: str) -> list[str]:
        folder = os.fspath(root)
        for name in path.split("/"):
            if name not in subfolders(folder):
                return []
            folder = os.path.join(folder, subfolders(folder)[name])
        names = sorted(data.image_names(folder), key=data.normalized)
        return [os.path.join(folder, each) for each in names]

    return images_in


def _look_up(
    rows: list[_Row],
    find: Callable[[str], list[str]],
    draw: Callable[[_Row, list[str], list[str]], tuple[list[str], list[str]]],
    none_found: str,
) -> Pairs:
    """Returns the rows whose images or videos both exist, as `Pairs`.

    Args:
      rows: all pairs of the protocol.
      find: returns the files of a name, none if it is missing.
      draw: returns equally many files of the first and of the second, to compare one by one.
      none_found: the message of `InputError` if no row is left.
    """
    files = {name: find(name) for name in sorted({name for row in rows for name in row[:2]})}
    kept = [row for row in rows if files[row.first] and files[row.second]]
    if not kept:
        raise InputError(none_found)
    drawn = [draw(row, files[row.first], files[row.second]) for row in kept]
    images = sorted({path for pair in drawn for side in pair for path in side})
    index_of = {path: index for index, path in enumerate(images)}
    first, second = (
        np.array([[index_of[path] for path in pair[side]] for pair in drawn]) for side in (0, 1)
    )
    return Pairs(
        images,
        first,
        second,
        same=np.array([row.same for row in kept]),
        folds=np.unique([row.fold for row in kept], return_inverse=True)[1].astype(np.int32),
        missing=tuple(name for name, paths in files.items() if not paths),
        num_left_out=len(rows) - len(kept),
    )
