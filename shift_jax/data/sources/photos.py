"""Photos without labels: a folder of them, or a TFDS set's images."""

import hashlib
import os

import numpy as np

from shift_jax.data.decode.images import check_image_size
from shift_jax.data.decode.photo_files import open_photo
from shift_jax.data.sources.identities import image_paths
from shift_jax.data.sources.listing import normalized, warn_of_other_files
from shift_jax.data.sources.selections import ImageFiles
from shift_jax.data.sources.source import Source
from shift_jax.data.sources.tfds import load_unlabelled
from shift_jax.errors import InputError


def load_photos(
    name: str,
    split: str,
    *,
    data_dir: str | None,
    image_size: int,
    held_out: int = 8,
) -> Source:
    """Opens photos, all of label 0. Reads local files only.

    Args:
      name: "photos", all images in a folder and the folders below it, or the name of a TFDS set
        whose examples have an "image", such as "coco", prepared in a random-access format.
      split: of a folder "train", or "test" for the photos held out; of TFDS its own, slices
        included.
      data_dir: The folder, or that of TFDS (None: TFDS's own default).
      image_size: Side in pixels to which the shorter side of photos is scaled; the central square
        is returned, in RGB.
      held_out: How many photos of a folder are "test", drawn by a hash of their names, so that a
        new photo changes one at most.

    Returns:
      The source.

    Raises:
      InputError: no such folder, set or split, or not so many photos.
    """
    check_image_size(image_size)
    if name != "photos":
        return load_unlabelled(name, split, data_dir, image_size)
    if data_dir is None:
        raise InputError("photos need data_dir: the folder that holds them.")
    if split not in ("train", "test"):
        raise InputError(f"A folder of photos has no split {split!r}: take 'train' or 'test'.")
    paths = image_paths(data_dir)
    if split == "train":
        warn_of_other_files(data_dir)
    if not 1 <= held_out < len(paths):
        raise InputError(
            f"{held_out} photos are to be held out of the {len(paths)} in {data_dir}, expected at "
            "least 1 and one left to train on: hold out another number."
        )
    drawn = set(sorted(paths, key=lambda path: _place(os.path.relpath(path, data_dir)))[:held_out])
    return ImageFiles(
        tuple(path for path in paths if (path in drawn) == (split == "test")), image_size
    )


def read_photo(path: str | os.PathLike[str], size: int | None = None) -> np.ndarray:
    """Reads one picture, turned as its EXIF data say, what is transparent laid over white.

    Args:
      path: The file.
      size: Pixels that its shorter side is scaled down to; None leaves it as it is.

    Returns:
      uint8 [H, W, 3], RGB.

    Raises:
      InputError: no such file, one that is no image, one whose shorter side is below `size`, or a
        size below 1.
    """
    from PIL import Image

    if size is not None and size < 1:
        raise InputError(
            f"{path} is to be scaled to a size of {size} pixels, expected at least 1: give its "
            "shorter side, or no size."
        )
    if not os.path.isfile(path):
        raise InputError(f"There is no picture {path}: name an image file.")
    pixels = open_photo(path).pixels
    shorter = min(pixels.shape[:2])
    if size is None or shorter == size:
        return pixels
    if shorter < size:
        raise InputError(
            f"{path} is {pixels.shape[1]}x{pixels.shape[0]} pixels, smaller than the {size} that "
            "it is to be scaled to: take a larger picture or a smaller size."
        )
    height, width = (max(size, round(side * size / shorter)) for side in pixels.shape[:2])
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def _place(name: str) -> bytes:
    return hashlib.sha256(normalized(name).encode("utf-8", "surrogateescape")).digest()
