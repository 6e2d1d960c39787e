"""Selected images in a given order, from files or from another source."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from shift_jax.data.decode.images import check_image_size
from shift_jax.data.sources.encoded import CroppedOnReading
from shift_jax.data.sources.folder import files_digest, read_image
from shift_jax.data.sources.source import EncodedExample, Example, LabeledSource
from shift_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class ImageFiles(CroppedOnReading):
    """Image files, all with label 0, scaled and cropped to their central square. A `Source`.

    Raises:
      InputError: `image_size` is not a whole number of pixels, at least 1.
    """

    paths: Sequence[str]
    image_size: int
    num_classes: int = dataclasses.field(default=1, init=False)
    class_names: None = dataclasses.field(default=None, init=False)

    def __post_init__(self):
        check_image_size(self.image_size)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    def __len__(self) -> int:
        return len(self.paths)

    def encoded(self, index: int) -> EncodedExample:
        """Returns the example at `index` with an `EncodedImage`."""
        return {"image": read_image(self.paths[index]), "label": np.int32(0)}

    def describe(self, index: int) -> str:
        """Returns the path of the file at `index`."""
        return self.paths[index]

    def files_digest(self) -> str:
        """See `files_digest`; the folder is the deepest one that contains all files."""
        folder = os.path.commonpath([os.path.dirname(path) for path in self.paths])
        return files_digest(folder, (os.path.relpath(path, folder) for path in self.paths))


@dataclasses.dataclass(frozen=True)
class Subset:
    """Some examples of a source, in any order, possibly repeated. A `Source`.

    Raises:
      InputError: a position is outside the source.
    """

    source: LabeledSource
    positions: np.ndarray
    """Integers [n], 0 .. len(source) - 1."""

    def __post_init__(self):
        positions = np.asarray(self.positions)
        if positions.size and not 0 <= positions.min() <= positions.max() < len(self.source):
            raise InputError(
                f"The positions of a subset range from {positions.min()} to {positions.max()}, "
                f"expected positions in the source, 0..{len(self.source) - 1}."
            )

    @property
    def num_classes(self) -> int:
        return self.source.num_classes

    @property
    def class_names(self) -> tuple[str, ...] | None:
        return self.source.class_names

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.source.image_shape

    @property
    def labels(self) -> np.ndarray:
        """int32 [n]."""
        return self.source.labels[self.positions]

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.positions[index])]

    def describe(self, index: int) -> str:
        """Names the example at `index` as the source does."""
        return self.source.describe(int(self.positions[index]))
