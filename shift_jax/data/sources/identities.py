"""Opens faces with their identities as classes, from folders or from TFDS's LFW.

CASIA-WebFace, MS-Celeb-1M and LFW come as `<data_dir>/<identity>/<image>`, YouTube Faces as
`<data_dir>/<identity>/<video>/<image>`.
"""

import os
from collections.abc import Collection, Sequence

import numpy as np

from shift_jax.data.decode.images import check_image_size
from shift_jax.data.sources.folder import FolderSource
from shift_jax.data.sources.listing import (
    IMAGE_EXTENSIONS,
    NO_IMAGE,
    file_names,
    has_extension,
    image_names,
    normalized,
    sorted_names,
    subfolders,
    warn_of_ignored,
)
from shift_jax.data.sources.tfds import RelabeledTfdsSource, load_texts
from shift_jax.errors import InputError, check_choice, did_you_mean
from shift_jax.files import absolute_path

_NAMES = ("identities", "lfw")


def load_identities(
    name: str,
    data_dir: str | None,
    image_size: int,
    *,
    split: str = "train",
    names: Collection[str] | None = None,
) -> FolderSource | RelabeledTfdsSource:
    """Opens faces with their identities as classes. It reads local files only.

    Args:
      name: "identities" for `<data_dir>/<identity>/**/<image>`, where images lie in the folder of
        their identity or in subfolders, such as one per video; or "lfw" for TFDS's Labeled Faces in
        the Wild, prepared in a random-access format. TFDS omits the image numbers that LFW's pairs
        refer to, so use "lfw" to train, not to evaluate on these pairs.
      data_dir: The folder of the identities, or of TFDS (None: TFDS's default).
      image_size: Side in pixels of the images: the shorter side is scaled to it, and the central
        square is kept, in RGB.
      split: TFDS split, including slices. Folders have "train" only.
      names: The identities to open; None for all.

    Returns:
      The source, an `EncodedSource` with `labels`, int32 [n]: the positions of the identities in
      its sorted `class_names`. Folders are sorted by identity, then by file; LFW keeps the order of
      its records. Identities without images are omitted.

    Raises:
      InputError: the dataset, folder, split or an identity does not exist, or there are no images.
        Reading a file that is not an image raises `UnreadableImageError`.
    """
    check_image_size(image_size)
    check_choice("The dataset of faces", name, _NAMES)
    if name == "lfw":
        return _load_lfw(data_dir, image_size, split, names)
    if split != "train":
        raise InputError(
            f"Folders of identities have no split {split!r}: use 'train', and choose identities "
            "by name."
        )
    data_dir, folders = _identity_folders(data_dir)
    files, ignored = {}, []
    for name in _taken(names, list(folders), data_dir):
        found = list(file_names(os.path.join(data_dir, folders[name]), nested=True))
        ignored += (os.path.join(folders[name], each) for each in found if not has_extension(each))
        if images := [each for each in found if has_extension(each)]:
            files[folders[name]] = sorted_names(images)
    warn_of_ignored(data_dir, ignored, NO_IMAGE)
    if not files:
        raise _no_images(data_dir)
    counts = [len(images) for images in files.values()]
    return FolderSource(
        str(data_dir),
        tuple(files),
        np.concatenate(list(files.values())),
        np.repeat(np.arange(len(files), dtype=np.int32), counts),
        image_size,
    )


def identity_names(name: str, data_dir: str | None) -> list[str]:
    """Returns the sorted names of the identities that have images.

    Args:
      name, data_dir: As for `load_identities`.

    Raises:
      InputError: the dataset or folder does not exist, or has no images.
    """
    check_choice("The dataset of faces", name, _NAMES)
    if name == "lfw":
        return sorted(set(load_texts("lfw", "train", data_dir)[1]))
    data_dir, folders = _identity_folders(data_dir)
    # any() stops at the first image of each.
    found = [
        name
        for name, folder in folders.items()
        if any(image_names(os.path.join(data_dir, folder), nested=True))
    ]
    if not found:
        raise _no_images(data_dir)
    return found


def image_paths(folder: str | os.PathLike[str]) -> list[str]:
    """Returns the sorted paths of all images in a folder and its subfolders.

    Raises:
      InputError: the folder does not exist, or has no images.
    """
    if not os.path.isdir(folder):
        raise InputError(f"{folder} is not a folder, expected a folder of images.")
    names = sorted_names(image_names(folder, nested=True))
    found = [os.path.join(folder, os.fsdecode(name)) for name in names]
    if not found:
        raise InputError(
            f"{folder} holds no images; add files ending in {', '.join(sorted(IMAGE_EXTENSIONS))}."
        )
    return found


def _load_lfw(
    data_dir: str | None, image_size: int, split: str, names: Collection[str] | None
) -> RelabeledTfdsSource:
    records, texts = load_texts("lfw", split, data_dir)
    found = sorted(set(texts))
    taken = _taken(names, found, f"TFDS's lfw {split}")
    label_of = {name: label for label, name in enumerate(taken)}
    positions = np.array([i for i, text in enumerate(texts) if text in label_of], np.int64)
    return RelabeledTfdsSource(
        f"lfw {split}",
        records,
        len(taken),
        tuple(taken),
        (image_size, image_size, 3),
        positions=positions,
        labels=np.array([label_of[texts[i]] for i in positions], np.int32),
    )


def _taken(names: Collection[str] | None, found: Sequence[str], where: str) -> list[str]:
    """Returns the sorted names, which must be among those found, or all of these for None."""
    if names is None:
        return sorted(found)
    if not names:
        raise InputError(f"The list of identities to open in {where} is empty; name at least one.")
    names = set(map(normalized, names))
    if unknown := sorted(names.difference(found)):
        raise InputError(
            f"{where} has no identity {unknown[0]!r}, expected one of its {len(found):,}, such as "
            f"{found[0]!r}.{did_you_mean(unknown[0], found)}"
        )
    return sorted(names)


def _identity_folders(data_dir: str | None) -> tuple[str, dict[str, str]]:
    """Returns `data_dir`, which must be given, and the folders of its identities by their names."""
    if data_dir is None or not os.path.isdir(data_dir):
        raise InputError(
            f"data_dir {data_dir and absolute_path(data_dir)} is not a folder; it should hold a "
            "folder of images for each identity: <data_dir>/<identity>/<image>."
        )
    found = subfolders(data_dir)
    if len(found) < 2:
        there = "".join(f"only the folder {name!r}" for name in found) or "no folders"
        raise InputError(
            f"{data_dir} has {there} in it, "
            "expected one for each of at least two identities: <data_dir>/<identity>/<image>."
        )
    return data_dir, found


def _no_images(data_dir: str) -> InputError:
    return InputError(
        f"The folders of identities in {data_dir} hold no images; add files ending in "
        f"{', '.join(sorted(IMAGE_EXTENSIONS))}."
    )
