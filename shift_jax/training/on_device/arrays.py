"""A whole dataset as arrays, from its source or from one file that only needs NumPy."""

from __future__ import annotations

import errno
import os
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shift_jax.data import ArraySource, load_source
from shift_jax.errors import InputError, check_choice
from shift_jax.files import replaced_file

if TYPE_CHECKING:
    from shift_jax.data import Source


class Dataset(NamedTuple):
    """The shape (H, W, C) of a dataset's images, and its number of classes."""

    image_shape: tuple[int, int, int]
    num_classes: int


DATASETS = {
    "digits": Dataset((8, 8, 1), 10),
    "cifar10": Dataset((32, 32, 3), 10),
    "cifar100": Dataset((32, 32, 3), 100),
}
"""The datasets small enough to lie on a device."""

# Errors of NumPy, zipfile and zlib for a damaged .npz file. A file of a single array, .npy, raises
# TypeError, because an array is not a context manager. Flipped bits can turn into sizes beyond the
# memory, encryption flags (RuntimeError) or positions before the beginning of the file (EINVAL).
_DAMAGE = (
    *(ValueError, KeyError, EOFError, TypeError, RuntimeError, MemoryError, OverflowError),
    *(zipfile.BadZipFile, zlib.error),
)


class Arrays(NamedTuple):
    """Images and labels of both splits.

    Attributes:
      train_images: uint8 [N, H, W, C].
      train_labels: int32 [N], 0 .. num_classes - 1.
      test_images: uint8 [M, H, W, C].
      test_labels: int32 [M].
      num_classes: number of classes of the dataset.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    num_classes: int

    @property
    def train_source(self) -> ArraySource:
        """The training images, one by one."""
        return ArraySource(self.train_images, self.train_labels, self.num_classes)

    @property
    def test_source(self) -> ArraySource:
        """The test images, one by one."""
        return ArraySource(self.test_images, self.test_labels, self.num_classes)


def load_arrays(
    name: str,
    *,
    path: str | os.PathLike[str] | None = None,
    data_dir: str | os.PathLike[str] | None = None,
) -> Arrays:
    """Reads a dataset.

    Args:
      name: "digits", "cifar10" or "cifar100".
      path: an .npz file with the four arrays of `Arrays`, as `save_arrays` writes it; None reads
        from `shift_jax.data.load_source`.
      data_dir: TFDS's folder, None for its default; unused with `path`.

    Raises:
      InputError: another name, a missing dataset, or a file that is damaged or holds another
        dataset.
    """
    check_choice("dataset", name, DATASETS)
    if path is not None:
        return _read(name, Path(path))
    data_dir = None if data_dir is None else os.fspath(data_dir)
    splits = [_stacked(load_source(name, split, data_dir=data_dir)) for split in ("train", "test")]
    return Arrays(*splits[0], *splits[1], DATASETS[name].num_classes)


def save_arrays(path: str | os.PathLike[str], arrays: Arrays) -> None:
    """Writes the four arrays to an .npz file; `path` holds the old file or the whole new one.

    Raises:
      InputError: a file that cannot be written.
    """
    path = Path(path)
    named = {field: getattr(arrays, field) for field in Arrays._fields if field != "num_classes"}
    try:
        with replaced_file(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **named)
    except (PermissionError, FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): name another file."
        ) from error


def _stacked(source: Source) -> tuple[np.ndarray, np.ndarray]:
    images = np.empty((len(source), *source.image_shape), np.uint8)
    labels = np.empty(len(source), np.int32)
    for index in range(len(source)):
        example = source[index]
        images[index], labels[index] = example["image"], example["label"]
    return images, labels


def _read(name: str, path: Path) -> Arrays:
    advice = "write it again with shift-jax pack-arrays"
    try:
        # Opened here, because np.load leaves a damaged file open.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = [file[field] for field in Arrays._fields if field != "num_classes"]
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}: {advice}, or name another.") from error
    except (PermissionError, IsADirectoryError) as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name another file.") from error
    except KeyError as error:
        raise InputError(f"{path} lacks an array ({error.args[0]}): {advice}.") from error
    except (OSError, *_DAMAGE) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # The disk failed, not the file.
        raise InputError(
            f"{path} is not an .npz file, or damaged ({' '.join(str(error).split())}): {advice}."
        ) from error
    if why := _why_unfit(DATASETS[name], *found):
        raise InputError(f"{path} does not hold {name} ({why}): {advice}.")
    train_images, train_labels, test_images, test_labels = found
    return Arrays(
        train_images,
        train_labels.astype(np.int32),
        test_images,
        test_labels.astype(np.int32),
        DATASETS[name].num_classes,
    )


def _why_unfit(
    dataset: Dataset,
    train_images: np.ndarray,
    train_labels: np.ndarray,
    test_images: np.ndarray,
    test_labels: np.ndarray,
) -> str:
    """Says why arrays are not those of a dataset; "" if they are."""
    for split, images, labels in (
        ("train", train_images, train_labels),
        ("test", test_images, test_labels),
    ):
        count = len(labels) if labels.ndim else 0
        if images.dtype != np.uint8 or images.shape != (count, *dataset.image_shape) or not count:
            return (
                f"{split}_images is {images.dtype} of shape {images.shape}, not uint8 with "
                f"{dataset.image_shape} for each of {count} labels"
            )
        if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
            return f"{split}_labels is {labels.dtype} of shape {labels.shape}, not integers [N]"
    labels = np.concatenate([train_labels, test_labels])
    if labels.min() < 0 or labels.max() + 1 != dataset.num_classes:
        return f"labels {labels.min()}..{labels.max()} do not make {dataset.num_classes} classes"
    return ""
