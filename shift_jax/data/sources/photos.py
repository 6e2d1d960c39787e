"""Opens photos without labels, from a folder or a TFDS dataset."""

import hashlib
import os

import numpy as np

from shift_jax.data.decode.images import check_image_size
from shift_jax.data.decode.photo_files import open_photo
from shift_jax.data.sources.identities import image_paths
from shift_jax.data.sources.listing import normalized, warn_of_other_files
from shift_jax.data.sources.selections import ImageFiles
from shift_jax.data.sources.source import Source
from shift_jax.data.sources.tfds import load_unlabeled
from shift_jax.errors import InputError
from shift_jax.files import absolute_path


def load_photos(
    name: str,
    split: str,
    *,
    data_dir: str | None,
    image_size: int,
    held_out: int = 8,
) -> Source:
    """Opens photos, all with label 0. It reads local files only.

    Args:
      name: "photos" for all images in a folder and its subfolders; or the name of a TFDS dataset
        whose examples have an "image", such as "coco", prepared in a random-access format.
      split: For a folder, "train", or "test" for the held-out photos; for TFDS, one of its splits,
        including slices.
      data_dir: The folder of the photos, or of TFDS (None: TFDS's default).
      image_size: Side in pixels of the images: the shorter side is scaled to it, and the central
        square is kept, in RGB.
      held_out: Number of photos of a folder that are "test". A hash of the names draws them, so
        that a new photo displaces at most one.

    Raises:
      InputError: the folder, dataset or split does not exist, or has too few photos.
    """
    check_image_size(image_size)
    if name != "photos":
        return load_unlabeled(name, split, data_dir, image_size)
    if data_dir is None:
        raise InputError("photos need data_dir: set it to the folder that holds the photos.")
    data_dir = absolute_path(data_dir)
    if split not in ("train", "test"):
        raise InputError(f"A folder of photos has no split {split!r}: use 'train' or 'test'.")
    paths = image_paths(data_dir)
    if split == "train":
        warn_of_other_files(data_dir)
    if not 1 <= held_out < len(paths):
        raise InputError(
            f"Cannot hold out {held_out} of the {len(paths)} photos in {data_dir}: choose a number "
            "of at least 1 that leaves one to train on."
        )
    drawn = set(sorted(paths, key=lambda path: _place(os.path.relpath(path, data_dir)))[:held_out])
    return ImageFiles(
        tuple(path for path in paths if (path in drawn) == (split == "test")), image_size
    )


def read_photo(path: str | os.PathLike[str], size: int | None = None) -> np.ndarray:
    """Reads one picture, rotated as its EXIF data say and blended with white where transparent.

    Args:
      path: The file.
      size: Pixels to which the shorter side is scaled down; None keeps the size.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      InputError: the file does not exist, is not an image, or is smaller than `size`; or `size` is
        below 1.
    """
    from PIL import Image

    if size is not None and size < 1:
        raise InputError(
            f"{path} cannot be scaled to a size of {size} pixels, expected at least 1: give the "
            "length of its shorter side, or no size."
        )
    if not os.path.isfile(path):
        raise InputError(f"There is no image {path}: name an image file.")
    pixels = open_photo(path).pixels
    shorter = min(pixels.shape[:2])
    if size is None or shorter == size:
        return pixels
    if shorter < size:
        raise InputError(
            f"{path} has {pixels.shape[1]}x{pixels.shape[0]} pixels, too few to scale it down to "
            f"{size}: choose a larger picture or a smaller size."
        )
    height, width = (max(size, round(side * size / shorter)) for side in pixels.shape[:2])
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _place(name: str) -> bytes:
    return hashlib.sha256(normalized(name).encode("utf-8", "surrogateescape")).digest()
