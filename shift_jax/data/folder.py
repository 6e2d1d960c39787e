"""Images in class folders: `<data_dir>/<split>/<class>/<image>`."""

import dataclasses
import pathlib

import numpy as np

from shift_jax.data.images import check_image_size, resize_and_centre_crop
from shift_jax.errors import InputError, did_you_mean

_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".pgm"})


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """Image files, decoded to RGB when they are read. A `Source`."""

    files: tuple[tuple[str, int], ...]
    """(path, label) of every image."""
    class_names: tuple[str, ...]
    image_size: int

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict:
        from PIL import Image

        path, label = self.files[index]
        try:
            with Image.open(path) as file:
                image = resize_and_centre_crop(file.convert("RGB"), self.image_size)
        except OSError as error:
            raise InputError(
                f"{path} can not be read as an image ({error}); replace or remove the file."
            ) from error
        return {"image": np.asarray(image), "label": np.int32(label)}


def load_folder(split: str, data_dir: str | None, image_size: int | None) -> FolderSource:
    """Lists the images of one split once; later changes in the folder are not seen.

    Labels count the sorted class names over ALL splits, so that a class missing from one
    split does not renumber the others.

    Args:
      split: A folder in `data_dir`.
      data_dir: The folder of the splits.
      image_size: Side in pixels of the square images returned.

    Returns:
      The source, ordered by class, then by file name.

    Raises:
      InputError: no size, no such folder, no class folders, or no images. A file that is
        not an image raises it when it is read.
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
    splits = _subfolders(root)
    if split not in splits:
        raise InputError(
            f"{data_dir} has no split folder {split!r}; it has: {', '.join(splits) or 'none'}."
            + did_you_mean(split, splits)
        )
    if not _subfolders(root / split):
        raise InputError(
            f"{root / split} has no class folders; put each image in {split}/<class>/."
        )
    class_names = tuple(sorted({name for each in splits for name in _subfolders(root / each)}))
    files = tuple(
        (str(path), label)
        for label, name in enumerate(class_names)
        for path in _image_files(root / split / name)
    )
    if not files:
        raise InputError(
            f"The class folders of {root / split} hold no images; "
            f"add files ending in {', '.join(sorted(_EXTENSIONS))}."
        )
    return FolderSource(files, class_names, image_size)


def _subfolders(folder: pathlib.Path) -> list[str]:
    # Hidden folders belong to tools such as .ipynb_checkpoints.
    return sorted(
        path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _image_files(folder: pathlib.Path) -> list[pathlib.Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _EXTENSIONS)
