"""Tells the classes of photos, and of folders of photos."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

import numpy as np

from shift_jax.errors import InputError

if TYPE_CHECKING:
    from shift_jax.data.class_names import ClassName
    from shift_jax.models.classifier import Classifier

_BATCH_SIZE = 32
# Of a contact sheet.
_CELL_SIZE, _COLUMNS = 160, 6
LARGEST_SHEET = 600
"""Photos that a contact sheet may have."""


class _Photo(NamedTuple):
    """A photo as the network reads it, and as a contact sheet may show it; uint8 [h, w, c]."""

    file: str
    pixels: np.ndarray
    picture: np.ndarray | None


class Prediction(NamedTuple):
    """The most probable classes of a photo, best first, with their probabilities."""

    file: str
    top: list[tuple[ClassName, float]]


def photos_to_classify(sources: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Returns the photos that are named, with those in folders, and folders' files of other kinds.

    Raises:
      InputError: no such photo or folder, or a folder without photos.
    """
    from shift_jax.data import image_paths
    from shift_jax.data.sources.listing import UNSUPPORTED_EXTENSIONS, image_names

    photos, others = [], []
    for source in map(str, sources):
        if os.path.isdir(source):
            photos += image_paths(source)
            names = image_names(source, UNSUPPORTED_EXTENSIONS, nested=True)
            others += (os.path.join(source, name) for name in sorted(names))
        elif os.path.isfile(source):
            photos.append(source)
        else:
            raise InputError(f"There is no photo {source}: name image files or folders of them.")
    return photos, others


class Predictor:
    """Tells the classes of photos, batch by batch.

    Args:
      classifier: the network.
      count: number of classes to tell of each photo.
      with_pictures: whether to keep a small picture of each photo, for `draw`.

    Attributes:
      refused: why photos were left out, a sentence for each.
      pictures: pairs of a label and uint8 [H, W, 3].
    """

    def __init__(self, classifier: Classifier, count: int, with_pictures: bool = False):
        from shift_jax.data.preprocessing import cropper

        self.refused: list[str] = []
        self.pictures: list[tuple[str, np.ndarray]] = []
        self._classifier, self._count, self._with_pictures = classifier, count, with_pictures
        self._crop = cropper(classifier)

    def predict(self, files: Sequence[str], *, progress: bool = False) -> Iterator[Prediction]:
        """Yields the classes of each photo that can be read, in order.

        Args:
          files: the photos.
          progress: whether to show a bar on stderr.

        Raises:
          InputError: the network's outputs are not finite.
        """
        import tqdm

        from shift_jax.data.decode.unreadable import UnreadableImageError

        size = min(len(files), _BATCH_SIZE)
        batch: list[_Photo] = []
        running: Callable[[], Iterator[Prediction]] | None = None
        for file in tqdm.tqdm(files, unit="photo", disable=not progress):
            try:
                batch.append(self._read(file))
            except UnreadableImageError as error:
                self.refused.append(str(error))
            if len(batch) == size:
                # While the device computes this batch, the previous one is written.
                finished, running, batch = running, self._start(batch, size), []
                if finished is not None:
                    yield from finished()
        if running is not None:
            yield from running()
        if batch:
            yield from self._start(batch, size)()

    def _read(self, file: str) -> _Photo:
        from shift_jax.data.decode.images import resize_and_center_crop
        from shift_jax.data.decode.photo_files import open_photo

        photo, picture = open_photo(file).pixels, None
        if self._with_pictures:
            picture = resize_and_center_crop(photo, _CELL_SIZE, self._classifier.crop)
        return _Photo(file, self._crop(photo), picture)

    def _start(self, batch: list[_Photo], size: int) -> Callable[[], Iterator[Prediction]]:
        """Starts to compute a batch; what it returns waits for the results."""
        from shift_jax.data.preprocessing import standardized

        classifier = self._classifier
        pixels = np.zeros((size, *classifier.image_shape), np.uint8)
        pixels[: len(batch)] = [photo.pixels for photo in batch]
        started = classifier.probabilities(standardized(pixels, classifier))

        def finish() -> Iterator[Prediction]:
            probabilities = np.asarray(started)
            for row, photo in enumerate(batch):
                top = classifier.top(probabilities[row], self._count)
                if photo.picture is not None:
                    (best, probability), *_ = top
                    self.pictures.append((f"{best.name} {probability:.0%}", photo.picture))
                yield Prediction(photo.file, top)

        return finish

    def draw(self, path: Path) -> None:
        """Writes the contact sheet of the photos; InputError if it cannot be written."""
        from shift_jax.data.decode.photo_files import Photo, contact_sheet, save_photo
        from shift_jax.files import as_input_error

        sheet = contact_sheet(self.pictures, _CELL_SIZE, _COLUMNS)
        with as_input_error(path, "name another --sheet"):
            save_photo(path, Photo(sheet))


def write_text(stream: TextIO, predictions: Iterable[Prediction]) -> None:
    """Writes the name of each photo and a line for each of its classes."""
    for file, top in predictions:
        stream.write(f"{file}\n")
        for (label, name), probability in top:
            in_dataset = "" if label == name else f" ({label})"
            stream.write(f"  {100 * probability:6.2f} %  {name}{in_dataset}\n")


def write_csv(stream: TextIO, predictions: Iterable[Prediction]) -> None:
    """Writes a row for each class of each photo."""
    rows = csv.writer(stream, lineterminator="\n")
    rows.writerow(("file", "rank", "label", "name", "probability"))
    for file, top in predictions:
        for rank, ((label, name), probability) in enumerate(top, start=1):
            rows.writerow((file, rank, label, name, f"{probability:.6g}"))


def write_json(stream: TextIO, predictions: Iterable[Prediction]) -> None:
    """Writes a list of `{"file": …, "top": [{"label": …, "name": …, "probability": …}]}`."""
    before = "[\n"
    for file, top in predictions:
        classes = [
            {"label": label, "name": name, "probability": float(f"{probability:.6g}")}
            for (label, name), probability in top
        ]
        stream.write(before + json.dumps({"file": file, "top": classes}))
        before = ",\n"
    stream.write("[]\n" if before == "[\n" else "\n]\n")


WRITERS = {"text": write_text, "csv": write_csv, "json": write_json}
"""What writes predictions, by the name of the format."""
