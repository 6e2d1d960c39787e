"""Detects the faces in a folder of photos and writes them aligned."""

from __future__ import annotations

import functools
import itertools
import os
import pathlib
import sys
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from shift_jax.data.decode.images import resize_and_center_crop
from shift_jax.data.decode.unreadable import UnreadableImageError
from shift_jax.data.faces.align_report import (
    ALIGNED,
    CROPPED,
    FILE_NAME,
    NO_FACE,
    UNREADABLE,
    Report,
    Row,
    as_bad_folder,
)
from shift_jax.data.faces.alignment import align_chosen, read_upright
from shift_jax.data.faces.detector import CHOICES, FaceDetector
from shift_jax.data.sources.identities import image_paths
from shift_jax.data.sources.listing import warn_of_other_files
from shift_jax.errors import InputError, check_choice
from shift_jax.files import replaced_file

_SIZES = range(16, 2049)
_QUALITY = 95
_REASON_LENGTH = 200


class _Settings(NamedTuple):
    image_size: int
    detector: FaceDetector
    face: str
    crop_without_face: bool


def align_folder(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    image_size: int,
    detector: FaceDetector,
    *,
    face: str = "largest",
    crop_without_face: bool = False,
) -> list[Row]:
    """Aligns the faces in all photos of a folder that no earlier call has aligned.

    Args:
      source: Folder of photos, at any depth.
      target: Folder for the aligned faces and the report; created if missing.
      image_size: Side of the aligned faces in pixels.
      detector: Detects the faces.
      face: Which of several faces to align, "largest" or "most_central".
      crop_without_face: Whether to crop photos without a face to their central square.

    Returns:
      The rows of the report for the photos in `source`.

    Raises:
      InputError: there are no photos, one folder lies in the other, or `target` holds unknown files
        or cannot be created or written.
    """
    import tqdm
    from PIL import Image

    check_choice("face", face, CHOICES)
    if image_size not in _SIZES:
        raise InputError(
            f"image_size is {image_size!r}; expected a whole number of pixels, {_SIZES[0]} to "
            f"{_SIZES[-1]}."
        )
    source, target = pathlib.Path(source), pathlib.Path(target)
    _check_folders(source, target)
    paths = [os.path.relpath(path, source) for path in image_paths(source)]
    warn_of_other_files(source)
    report = Report(target)

    def is_done(row: Row) -> bool:
        if row.status == NO_FACE:
            easier = detector.min_confidence < float(row.min_confidence)
            return not (easier or crop_without_face)
        return row.status in (ALIGNED, CROPPED) and (target / row.output).exists()

    done = {path: row for path, row in report.rows.items() if is_done(row)}
    _check_settings(done.values(), target, str(image_size), face)
    outputs = _outputs(paths, done)
    todo = [path for path in paths if path not in done]
    _check_unknown(target / outputs[path] for path in todo)
    report.rewrite(done.values())
    settings = _Settings(image_size, detector, face, crop_without_face)
    for path in tqdm.tqdm(
        todo,
        unit="photo",
        initial=len(paths) - len(todo),
        total=len(paths),
        disable=not sys.stderr.isatty(),
    ):
        row, pixels = _align(source, path, outputs[path], settings)
        if pixels is None:
            report.append(row)
            continue
        with as_bad_folder(target):
            (target / row.output).parent.mkdir(parents=True, exist_ok=True)
        with replaced_file(target / row.output) as temporary:
            Image.fromarray(pixels).save(temporary, "JPEG", quality=_QUALITY, subsampling=0)
            # Before the file takes its place, so that even a killed run leaves no face without row.
            report.append(row)
    return [report.rows[path] for path in paths]


def _align(
    source: pathlib.Path, path: str, output: str, settings: _Settings
) -> tuple[Row, np.ndarray | None]:
    """Returns the row of the report for a photo, and the pixels to write, if any."""
    image_size, detector, face, crop_without_face = settings
    row = functools.partial(
        Row,
        path,
        image_size=str(image_size),
        face=face,
        min_confidence=f"{detector.min_confidence}",
    )
    try:
        image = read_upright(source / path)
        if aligned := align_chosen(image, image_size, detector, face):
            measured = {
                "faces": str(aligned.num_faces),
                "confidence": f"{aligned.face.confidence:.4f}",
                "eye_distance": f"{aligned.face.eye_distance:.1f}",
            }
            return row(ALIGNED, output, **measured), aligned.image
        if crop_without_face:
            return row(CROPPED, output), _central_square(image, image_size)
        return row(NO_FACE), None
    except UnreadableImageError as error:
        return row(UNREADABLE, reason=error.reason), None
    # These would recur with every photo: too many open files, or no TensorFlow.
    except (OSError, ImportError):
        raise
    # Neither a lack of memory for this photo nor an error of TensorFlow must stop the work on
    # thousands of others; the next run tries it again.
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return row(UNREADABLE, reason=text[:_REASON_LENGTH]), None


def _central_square(image: np.ndarray, image_size: int) -> np.ndarray:
    # Cropping comes first, since a panorama scaled up to this height may not fit into memory.
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return resize_and_center_crop(image[top : top + side, left : left + side], image_size)


def _check_folders(source: pathlib.Path, target: pathlib.Path) -> None:
    if not source.is_dir():
        raise InputError(f"{source} is not a folder: name a folder of photos.")
    with as_bad_folder(target):
        if target.exists() and not target.is_dir():
            raise InputError(f"{target} is a file: name a folder for the aligned faces.")
    # Path.resolve would raise an error for circular links.
    faces, photos = (pathlib.Path(os.path.realpath(folder)) for folder in (target, source))
    if faces.is_relative_to(photos):
        where = "is" if faces == photos else "lies in"
        raise InputError(
            f"The folder for the aligned faces, {target}, {where} the folder of the photos, "
            f"{source}: choose another one."
        )
    if photos.is_relative_to(faces):
        raise InputError(
            f"The folder of the photos, {source}, lies in the folder for the aligned faces, "
            f"{target}: choose another one."
        )


def _check_settings(rows: Iterable[Row], target: pathlib.Path, image_size: str, face: str) -> None:
    """Ensures that all faces in a folder have one size and were chosen in the same way."""
    for row in rows:
        if row.output and (row.image_size, row.face) != (image_size, face):
            raise InputError(
                f"{target} holds faces that were aligned with --image_size={row.image_size} "
                f"--face={row.face}: use the same flags, or choose another folder."
            )


def _outputs(paths: Iterable[str], rows: dict[str, Row]) -> dict[str, str]:
    """Returns the name of each photo in DST."""
    outputs = {path: row.output for path, row in rows.items() if row.output}
    taken = set(outputs.values())
    for path in paths:
        if path not in outputs:
            longer = (path + ".jpg" * times for times in itertools.count(1))
            names = itertools.chain([os.path.splitext(path)[0] + ".jpg"], longer)
            outputs[path] = next(name for name in names if name not in taken)
            taken.add(outputs[path])
    return outputs


def _check_unknown(outputs: Iterable[pathlib.Path]) -> None:
    for path in outputs:
        if path.exists():
            raise InputError(
                f"{path} exists but is not in {FILE_NAME}: remove it, or choose another folder for "
                "the aligned faces."
            )


def summary(rows: list[Row], target: str | os.PathLike[str]) -> str:
    """Counts the photos by their status, and says why the first unreadable ones are unreadable."""
    counts = {
        status: sum(row.status == status for row in rows)
        for status in (ALIGNED, CROPPED, NO_FACE, UNREADABLE)
    }
    several = sum(int(row.faces) > 1 for row in rows)
    lines = [
        f"{len(rows):,} photos: {counts[ALIGNED]:,} aligned ({several:,} of them with several "
        f"faces), {counts[CROPPED]:,} cropped, {counts[NO_FACE]:,} without a face, "
        f"{counts[UNREADABLE]:,} unreadable"
    ]
    for row in [row for row in rows if row.status == UNREADABLE][:3]:
        lines.append(f"unreadable: {row.path} ({row.reason})")
    lines.append(f"{os.path.join(target, FILE_NAME)} lists all photos")
    return "\n".join(lines)
