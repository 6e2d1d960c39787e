"""The door to the data sets: `load_source` and what it returns.

To register a source, write a function `(split, data_dir, image_size, eval_crop, class_splits) ->
Source` in a file of its own and add it to `_LOADERS`.
"""

from collections.abc import Sequence
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np

from shift_jax.data.decode.images import EncodedImage, check_eval_crop
from shift_jax.data.sources.digits import load_digits
from shift_jax.data.sources.folder import load_folder
from shift_jax.data.sources.synthetic import load_synthetic
from shift_jax.data.sources.tfds import load_tfds


class Example(TypedDict):
    """One labelled image."""

    image: np.ndarray
    """uint8 [H, W, C], 0..255, channels are RGB or one grey."""
    label: np.int32
    """0 .. num_classes - 1."""


class Source(Protocol):
    """Labelled images in a fixed order, read by index.

    Picklable, since Grain sends it to its worker processes. The arrays it returns may be
    views of its own memory: copy before writing.
    """

    num_classes: int
    class_names: tuple[str, ...] | None
    """One name per label, or None when the data set has no names."""
    image_shape: tuple[int, int, int]
    """(H, W, C) of every image."""

    def __len__(self) -> int:
        """Number of examples."""
        ...

    def __getitem__(self, index: int) -> Example:
        """The example at `index`, 0 <= index < len(self), ready for evaluation.

        Raises:
          UnreadableImageError: the image is damaged.
        """
        ...


class EncodedExample(TypedDict):
    """One labelled image as it is stored."""

    image: EncodedImage
    label: np.int32
    """0 .. num_classes - 1."""


@runtime_checkable
class EncodedSource(Source, Protocol):
    """A source of files, which a transform may decode no further than it needs."""

    def encoded(self, index: int) -> EncodedExample:
        """The example at `index`; raises `UnreadableImageError` where that shows already."""
        ...

    def describe(self, index: int) -> str:
        """What the file or record at `index` is called."""
        ...


_LOADERS = {"digits": load_digits, "folder": load_folder, "synthetic": load_synthetic}


def load_source(
    name: str,
    split: str,
    *,
    data_dir: str | None = None,
    image_size: int | None = None,
    eval_crop: float = 1.0,
    class_splits: Sequence[str] | None = None,
) -> Source:
    """Opens one split of a data set. Reads local files only, never the network.

    Args:
      name: "digits" (scikit-learn's 8x8 digits), "folder" (images in class folders),
        "synthetic" (a few random images in the numbers of ImageNet), or the name of any TFDS
        image classification set prepared in a random-access format.
      split: "train", "test" or what else the set has; TFDS also takes slices such as
        "train[:80%]".
      data_dir: Where the images are: the folder holding `<split>/<class>/`, or the TFDS
        folder (None: TFDS's own default). "digits" ships with scikit-learn, and it and
        "synthetic" need none.
      image_size: Side in pixels to which images are resized (shorter side) and centre
        cropped. Needed where the images have no common size; None keeps their own.
      eval_crop: Fraction of the shorter side that the centre crop keeps: 0.875 with an
        image_size of 224 resizes to 256 first.
      class_splits: For "folder", the splits whose folders are the classes, as far as they exist;
        None for all.

    Returns:
      The source, an `EncodedSource` if its images differ in size.

    Raises:
      InputError: the name, split, folder, size or crop does not lead to at least one image.
    """
    check_eval_crop(eval_crop)
    if name in _LOADERS:
        return _LOADERS[name](split, data_dir, image_size, eval_crop, class_splits)
    return load_tfds(name, split, data_dir, image_size, eval_crop, other_names=tuple(_LOADERS))
