"""Opens images in class folders: `<data_dir>/<split>/<class>/<image>`."""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shift_jax.data.decode.images import EncodedImage, check_image_size
from shift_jax.data.decode.unreadable import (
    IMAGE_ERRORS,
    as_unreadable,
)
from shift_jax.data.sources.encoded import CroppedOnReading
from shift_jax.data.sources.listing import (
    IMAGE_EXTENSIONS,
    NO_IMAGE,
    file_names,
    has_extension,
    normalized,
    sorted_names,
    subfolders,
    warn_of_ignored,
)
from shift_jax.errors import InputError, did_you_mean
from shift_jax.files import absolute_path

if TYPE_CHECKING:
    from shift_jax.data.sources.source import EncodedExample


@dataclasses.dataclass(frozen=True)
class FolderSource(CroppedOnReading):
    """Image files in class folders, decoded to RGB on reading. A `Source`."""

    folder: str
    """The folder that holds the class folders, such as `<data_dir>/<split>`."""
    class_folders: tuple[str, ...]
    """The folder of each class as it is named on the disk."""
    file_names: np.ndarray
    """Bytes [n], relative to the class folder. An array, because millions of strings are slow to
    send to workers."""
    labels: np.ndarray
    """int32 [n]."""
    image_size: int
    eval_crop: float = 1.0

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the class folders in Unicode's normal form C."""
        return tuple(map(normalized, self.class_folders))

    @property
    def num_classes(self) -> int:
        return len(self.class_folders)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    def __len__(self) -> int:
        return len(self.labels)

    def encoded(self, index: int) -> "EncodedExample":
        """Returns the example at `index` with an `EncodedImage`."""
        return {"image": read_image(self.describe(index)), "label": self.labels[index]}

    def describe(self, index: int) -> str:
        """Returns the path of the file at `index`."""
        class_folder = self.class_folders[self.labels[index]]
        return os.path.join(self.folder, class_folder, os.fsdecode(self.file_names[index]))

    def files_digest(self) -> str:
        """See `files_digest`."""
        names = (
            f"{self.class_folders[label]}/{os.fsdecode(name)}"
            for label, name in zip(self.labels, self.file_names, strict=True)
        )
        return files_digest(self.folder, names)


def files_digest(folder: str, names: Iterable[str]) -> str:
    """Returns the SHA-256 of the names and sizes of files. Moving their folder does not change it.

    Args:
      folder: The folder that the names are relative to.
      names: The names of the files, in an order that matters.
    """
    digest = hashlib.sha256()
    for name in names:
        try:
            size = os.stat(os.path.join(folder, name)).st_size
        except OSError:
            size = -1  # A link that leads nowhere is an unreadable image, which may be allowed.
        name = normalized(name).replace(os.sep, "/")
        digest.update(f"{name}\0{size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def read_image(path: str) -> EncodedImage:
    """Reads an image file; raises `UnreadableImageError` if its header is not that of an image."""
    try:
        return EncodedImage(_read(path))
    except IMAGE_ERRORS as error:
        raise as_unreadable(path, error) from error


def _read(path: str) -> bytes:
    """Returns the bytes of a file, with as few system calls as possible."""
    file = os.open(path, os.O_RDONLY)
    try:
        size = os.fstat(file).st_size
        data = os.read(file, size)
        while len(data) < size and (more := os.read(file, size - len(data))):
            data += more
        return data
    finally:
        os.close(file)


def load_folder(
    split: str,
    data_dir: str | None,
    image_size: int | None,
    eval_crop: float,
    class_splits: Sequence[str] | None = None,
) -> FolderSource:
    """Lists the images of one split. The source does not see later changes in the folder.

    Labels index the sorted class names of all of `class_splits`, so that a class missing from one
    split does not renumber the others. Classes without images are logged, and so are ignored files:
    those without an image extension and those not directly in a class folder.

    Args:
      split: A folder in `data_dir`.
      data_dir: The folder that holds the splits.
      image_size: Side of the square images in pixels.
      eval_crop: Fraction of the shorter side that images keep.
      class_splits: The splits whose folders are the classes, as far as they exist; None for all.

    Returns:
      The source, ordered by class, then by file name.

    Raises:
      InputError: the size is missing, the folder or split does not exist, it has no class folders
        or no images, or it has images of a class that is not in `class_splits`. Reading a file that
        is not an image raises `UnreadableImageError`.
    """
    if image_size is None:
        raise InputError(
            "folder images differ in size; set image_size to the side in pixels to resize them to."
        )
    check_image_size(image_size)
    if data_dir is None:
        raise InputError("folder needs data_dir: the folder that holds <split>/<class>/<image>.")
    root = pathlib.Path(data_dir)
    if not root.is_dir():
        raise InputError(
            f"data_dir {absolute_path(data_dir)} is not a folder; it should hold "
            "<split>/<class>/<image>."
        )
    splits = subfolders(data_dir)
    if split not in splits:
        raise InputError(
            f"{data_dir} has no split folder {split!r}; it has: {', '.join(splits) or 'none'}."
            + did_you_mean(split, splits)
        )
    folder = root / splits[split]
    own = subfolders(folder)
    if not own:
        raise InputError(f"{folder} has no class folders; put each image in {split}/<class>/.")
    naming = [each for each in splits if class_splits is None or each in class_splits] or [split]
    named = {name for each in naming for name in subfolders(root / splits[each])}
    files = _class_files(folder, own)
    class_names = sorted(named)
    if strange := [name for name in files if len(files[name]) and name not in named]:
        raise InputError(
            f"{folder / own[strange[0]]} holds images, but {strange[0]!r} is not a class of "
            f"{' and '.join(naming)}: choose a split with the same classes."
            f"{did_you_mean(strange[0], named)}"
        )
    counts = [len(files.get(name, ())) for name in class_names]
    if not sum(counts):
        raise InputError(
            f"The class folders of {folder} hold no images; "
            f"add files ending in {', '.join(sorted(IMAGE_EXTENSIONS))}."
        )
    _warn_of_classes(folder, dict(zip(class_names, counts, strict=True)))
    return FolderSource(
        str(folder),
        tuple(own.get(name, name) for name in class_names),
        np.concatenate([files[name] for name in class_names if name in files]),
        np.repeat(np.arange(len(class_names), dtype=np.int32), counts),
        image_size,
        eval_crop,
    )


def _class_files(folder: pathlib.Path, classes: dict[str, str]) -> dict[str, np.ndarray]:
    """Lists the image files in each class folder and logs the files that it ignores."""
    files, ignored = {}, list(file_names(folder))
    for name, class_folder in classes.items():
        images = []
        for file in file_names(folder / class_folder, nested=True):
            if has_extension(file) and not os.path.dirname(file):
                images.append(file)
            else:
                ignored.append(os.path.join(class_folder, file))
        files[name] = sorted_names(images)
    warn_of_ignored(
        folder,
        [file for file in ignored if has_extension(file)],
        "not directly in a class folder",
    )
    warn_of_ignored(folder, [file for file in ignored if not has_extension(file)], NO_IMAGE)
    return files


def _warn_of_classes(folder: pathlib.Path, counts: dict[str, int]) -> None:
    from absl import logging

    if empty := [name for name, count in counts.items() if not count]:
        logging.warning(
            "%s",
            f"{folder} has no images of {len(empty):,} of the {len(counts):,} classes, such as "
            f"{empty[0]!r}.",
        )
    if len(counts) == 1:
        logging.warning(
            "%s",
            f"{folder} has a single class, {next(iter(counts))!r}, so there is nothing to learn: "
            "put the images of each class in a folder of their own.",
        )
