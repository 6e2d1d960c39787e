"""Images in class folders: `<data_dir>/<split>/<class>/<image>`."""

import dataclasses
import heapq
import os
import pathlib
from collections.abc import Collection, Iterable, Iterator

import numpy as np

from shift_jax.data.decode.images import EncodedImage, check_image_size
from shift_jax.data.decode.unreadable import (
    IMAGE_ERRORS,
    UndecodableError,
    UnreadableImageError,
    as_unreadable,
)
from shift_jax.errors import InputError, did_you_mean

IMAGE_EXTENSIONS = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"}
)
# More of what Pillow reads: people's photos and frames come in any format.
PHOTO_EXTENSIONS = IMAGE_EXTENSIONS | frozenset(
    [".gif", ".jpe", ".jfif", ".avif", ".jp2", ".j2k", ".pbm", ".pnm", ".tga"]
)


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Image files, decoded to RGB when they are read. A `Source`."""

    folder: str
    """That of the class folders, such as `<data_dir>/<split>`."""
    file_names: np.ndarray
    """Bytes [n], within their class folder: an array, since millions of strings are slow to send
    to workers."""
    labels: np.ndarray
    """int32 [n]."""
    class_names: tuple[str, ...]
    image_size: int
    eval_crop: float = 1.0

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        example = self.encoded(index)
        try:
            image = example["image"].centre_crop(self.image_size, self.eval_crop)
        except UndecodableError as error:
            raise UnreadableImageError(self.describe(index), str(error)) from error
        return {"image": image, "label": example["label"]}

    def encoded(self, index: int) -> dict:
        """The example at `index` with an `EncodedImage`."""
        return {"image": read_image(self.describe(index)), "label": self.labels[index]}

    def describe(self, index: int) -> str:
        """The path of the file at `index`."""
        class_name = self.class_names[self.labels[index]]
        return os.path.join(self.folder, class_name, os.fsdecode(self.file_names[index]))


def read_image(path: str) -> EncodedImage:
    """Reads an image file; raises `UnreadableImageError` where its header shows that it is none."""
    try:
        return EncodedImage(_read(path))
    except IMAGE_ERRORS as error:
        raise as_unreadable(path, error) from error


def _read(path: str) -> bytes:
    """The file's bytes, by as few calls of the system as that takes."""
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
    split: str, data_dir: str | None, image_size: int | None, eval_crop: float
) -> FolderSource:
    """Lists the images of one split once; later changes in the folder are not seen.

    Labels count the sorted class names over ALL splits, so that a class missing from one
    split does not renumber the others.

    Args:
      split: A folder in `data_dir`.
      data_dir: The folder of the splits.
      image_size: Side in pixels of the square images returned.
      eval_crop: Fraction of the shorter side that these keep.

    Returns:
      The source, ordered by class, then by file name.

    Raises:
      InputError: no size, no such folder, no class folders, or no images. A file that is
        not an image raises `UnreadableImageError` when it is read.
    """
    if image_size is None:
        raise InputError(
            "folder images differ in size; set image_size to the side in pixels they should get."
        )
    check_image_size(image_size)
    if data_dir is None:
        raise InputError("folder needs data_dir: the folder that holds <split>/<class>/<image>.")
    root = pathlib.Path(data_dir)
    if not root.is_dir():
        raise InputError(
            f"data_dir {data_dir} is not a folder; it should hold <split>/<class>/<image>."
        )
    splits = subfolders(data_dir)
    if split not in splits:
        raise InputError(
            f"{data_dir} has no split folder {split!r}; it has: {', '.join(splits) or 'none'}."
            + did_you_mean(split, splits)
        )
    if not subfolders(root / split):
        raise InputError(
            f"{root / split} has no class folders; put each image in {split}/<class>/."
        )
    class_names = tuple(sorted({name for each in splits for name in subfolders(root / each)}))
    folders = [root / split / name for name in class_names]
    files = [
        sorted_names(image_names(each, IMAGE_EXTENSIONS) if each.is_dir() else ())
        for each in folders
    ]
    labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(names) for names in files])
    if not labels.size:
        raise InputError(
            f"The class folders of {root / split} hold no images; "
            f"add files ending in {', '.join(sorted(IMAGE_EXTENSIONS))}."
        )
    return FolderSource(
        str(root / split), np.concatenate(files), labels, class_names, image_size, eval_crop
    )


def subfolders(folder: str | os.PathLike[str]) -> list[str]:
    """Returns the sorted names of the folders in a folder, but for hidden ones."""
    # Hidden folders belong to tools such as .ipynb_checkpoints.
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry)
        )


def image_names(
    folder: str | os.PathLike[str], extensions: Collection[str], *, nested: bool = False
) -> Iterator[str]:
    """Yields the names of the files in a folder that end like images, in any order.

    Args:
      folder: Where to look.
      extensions: Endings of images, such as ".png", in lower case.
      nested: Whether to look in the folders below too, and in those below them; their files are
        called `<subfolder>/<file>`. Links are followed, but each folder is listed once, under its
        own name if it lies in `folder`, else under that of the first link to it; folders above a
        link are not.
    """
    folders, links, listed = [("", os.path.realpath(folder))], [], set()
    while folders or links:
        if folders:
            name, path = folders.pop()
        else:
            # The links last and in order: else the system's order would choose the names.
            name, parent = heapq.heappop(links)
            path = os.path.realpath(os.path.join(folder, name))
            if os.path.commonpath([path, parent]) == path:
                continue
        if path in listed:
            continue
        listed.add(path)
        with os.scandir(os.path.join(folder, name)) as entries:
            for entry in entries:
                # Hidden files, such as the ._1.jpg that macOS leaves beside 1.jpg, are no images.
                if entry.name.startswith("."):
                    continue
                if nested and _is_folder(entry):
                    below = os.path.join(name, entry.name)
                    if entry.is_symlink():
                        heapq.heappush(links, (below, path))
                    else:
                        folders.append((below, os.path.join(path, entry.name)))
                elif os.path.splitext(entry.name)[1].lower() in extensions:
                    yield os.path.join(name, entry.name)


def _is_folder(entry: os.DirEntry) -> bool:
    # Of a link to itself the entry raises an error.
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def sorted_names(names: Iterable[str]) -> np.ndarray:
    """Returns file names in order as an array of bytes [n], many times smaller than strings."""
    return np.array([os.fsencode(name) for name in sorted(names)], np.bytes_)
