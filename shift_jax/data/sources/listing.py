"""Lists files and folders that are data, and skips those that operating systems and tools leave.

Names are compared and sorted in Unicode's normal form C. macOS may store an accent as a separate
character (form D), while Linux and Windows store names as they are given.
"""

import heapq
import os
import unicodedata
from collections.abc import Collection, Iterable, Iterator

import numpy as np

from shift_jax.errors import InputError

IMAGE_EXTENSIONS = frozenset(
    {
        ".avif",
        ".bmp",
        ".gif",
        ".j2k",
        ".jfif",
        ".jp2",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tga",
        ".tif",
        ".tiff",
        ".webp",
    }
)
"""Supported image extensions, in lower case. Of an animation, the first frame is read."""

UNSUPPORTED_EXTENSIONS = frozenset(
    {
        ".arw",
        ".cr2",
        ".cr3",
        ".dng",
        ".heic",
        ".heif",
        ".hif",
        ".jxl",
        ".nef",
        ".orf",
        ".raf",
        ".rw2",
    }
)
"""Formats of phones and cameras that Pillow does not read, or reads only the thumbnail of."""

NO_IMAGE = "without an image extension"
"""The most frequent reason for `warn_of_ignored`."""

# In lower case. Names that start with a dot, such as .DS_Store and ._1.jpg, are litter, too.
_LITTER = frozenset(
    {
        "#recycle",
        "$recycle.bin",
        "@eadir",
        "__macosx",
        "desktop.ini",
        "ehthumbs.db",
        "icon\r",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name belongs to an operating system or a tool."""
    return name.startswith(".") or name.lower() in _LITTER


def normalized(name: str) -> str:
    """Returns a name in Unicode's normal form C, in which names that look equal are equal."""
    return unicodedata.normalize("NFC", name)


def subfolders(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Lists the folders in a folder.

    Args:
      folder: Where to look.

    Returns:
      A dict from sorted names in normal form C to the names on the disk.

    Raises:
      InputError: two names have the same normal form.
    """
    found: dict[str, str] = {}
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if not is_litter(entry.name) and _is_folder(entry)]
    for name in names:
        if normalized(name) in found:
            raise InputError(
                f"{folder} holds two folders named {normalized(name)!r} that differ only in the "
                "Unicode encoding of their accents: move the files of one into the other."
            )
        found[normalized(name)] = name
    return dict(sorted(found.items()))


def file_names(folder: str | os.PathLike[str], *, nested: bool = False) -> Iterator[str]:
    """Yields the names of the files in a folder, in any order.

    Args:
      folder: Where to look.
      nested: Whether to look in subfolders, too, to any depth. Their files are named
        `<subfolder>/<file>`. Links are followed, but each folder is listed only once: under its own
        name if it lies in `folder`, otherwise under the name of the first link to it. Links to a
        folder that contains them are skipped.
    """
    folders, links, listed = [("", os.path.realpath(folder))], [], set()
    while folders or links:
        if folders:
            name, path = folders.pop()
        else:
            # Links come last and sorted, so that names do not depend on the file system's order.
            name, parent = heapq.heappop(links)
            path = os.path.realpath(os.path.join(folder, name))
            if os.path.commonpath([path, parent]) == path:
                continue
        if path in listed:
            continue
        listed.add(path)
        with os.scandir(os.path.join(folder, name)) as entries:
            for entry in entries:
                if is_litter(entry.name):
                    continue
                below = os.path.join(name, entry.name)
                if not _is_folder(entry):
                    yield below
                elif nested and entry.is_symlink():
                    heapq.heappush(links, (below, path))
                elif nested:
                    folders.append((below, os.path.join(path, entry.name)))


def has_extension(name: str, extensions: Collection[str] = IMAGE_EXTENSIONS) -> bool:
    """Whether a file name has one of the extensions, in upper or lower case."""
    return os.path.splitext(name)[1].lower() in extensions


def image_names(
    folder: str | os.PathLike[str],
    extensions: Collection[str] = IMAGE_EXTENSIONS,
    *,
    nested: bool = False,
) -> Iterator[str]:
    """Yields those of `file_names` that have one of the extensions."""
    return (name for name in file_names(folder, nested=nested) if has_extension(name, extensions))


def sorted_names(names: Iterable[str]) -> np.ndarray:
    """Sorts file names into an array of bytes [n], which is many times smaller than strings."""
    return np.array([os.fsencode(name) for name in sorted(names, key=normalized)], np.bytes_)


def warn_of_other_files(folder: str | os.PathLike[str]) -> None:
    """Logs how many files in a folder and its subfolders have no image extension."""
    others = [name for name in file_names(folder, nested=True) if not has_extension(name)]
    warn_of_ignored(folder, others, NO_IMAGE)


def warn_of_ignored(folder: str | os.PathLike[str], names: Collection[str], why: str) -> None:
    """Logs how many files of a folder are ignored and why, with one of them as an example."""
    if not names:
        return
    from absl import logging

    count = "1 file" if len(names) == 1 else f"{len(names):,} files"
    logging.warning("%s", f"{os.fspath(folder)}: ignoring {count} {why}, such as {min(names)}.")


def _is_folder(entry: os.DirEntry) -> bool:
    if not entry.is_symlink():
        return entry.is_dir()
    # Following a link takes a system call, which is too slow for millions of linked images. For a
    # link to itself, entry.is_dir() would raise an error.
    return not has_extension(entry.name) and os.path.isdir(entry.path)
