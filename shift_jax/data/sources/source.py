"""The `Source` protocol, and `load_source`, which opens a dataset by name.

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
    """One labeled image."""

    image: np.ndarray
    """uint8 [H, W, C], 0..255, channels are RGB or one gray."""
    label: np.int32
    """0 .. num_classes - 1."""


class Source(Protocol):
    """Labeled images in a fixed order, read by index.

    Sources are picklable, since Grain sends them to its worker processes. The arrays that they
    return may be views of their own memory: copy before writing.
    """

    @property
    def num_classes(self) -> int:
        """Number of labels."""
        ...

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """One name per label, or None if the dataset has no names."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of every image."""
        ...

    def __len__(self) -> int:
        """Returns the number of examples."""
        ...

    def __getitem__(self, index: int) -> Example:
        """Returns the example at `index`, 0 <= index < len(self), as it is evaluated.

        Raises:
          UnreadableImageError: the image is damaged.
        """
        ...


class EncodedExample(TypedDict):
    """One labeled image before decoding."""

    image: EncodedImage
    label: np.int32
    """0 .. num_classes - 1."""


class DescribedSource(Source, Protocol):
    """A source that knows where its examples come from."""

    def describe(self, index: int) -> str:
        """Names the file or record at `index`."""
        ...


@runtime_checkable
class EncodedSource(DescribedSource, Protocol):
    """A source of image files, which a transform can decode no further than it needs."""

    def encoded(self, index: int) -> EncodedExample:
        """Returns the example at `index`; may raise `UnreadableImageError`."""
        ...


class LabeledSource(EncodedSource, Protocol):
    """A source whose labels are known without reading its images."""

    @property
    def labels(self) -> np.ndarray:
        """int32 [n]."""
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
    """Opens one split of a dataset. It reads local files only, never the network.

    Args:
      name: "digits" (scikit-learn's 8x8 digits), "folder" (images in class folders), "synthetic" (a
        few random images, repeated to the size of ImageNet), or the name of any TFDS image
        classification dataset prepared in a random-access format.
      split: "train", "test" or another split of the dataset; TFDS also accepts slices such as
        "train[:80%]".
      data_dir: The folder that holds `<split>/<class>/`, or the TFDS folder (None: TFDS's default).
        "digits", which ships with scikit-learn, and "synthetic" do not need one.
      image_size: Side in pixels of the images: the shorter side is scaled to it, and the center is
        cropped. Required if the images differ in size; None keeps their size.
      eval_crop: Fraction of the shorter side that the center crop keeps: 0.875 with an image_size
        of 224 resizes to 256 first.
      class_splits: For "folder", the splits whose folders are the classes, as far as they exist;
        None for all.

    Returns:
      The source, an `EncodedSource` if its images differ in size.

    Raises:
      InputError: the arguments do not lead to at least one image.
    """
    check_eval_crop(eval_crop)
    if name in _LOADERS:
        return _LOADERS[name](split, data_dir, image_size, eval_crop, class_splits)
    return load_tfds(name, split, data_dir, image_size, eval_crop, other_names=tuple(_LOADERS))
