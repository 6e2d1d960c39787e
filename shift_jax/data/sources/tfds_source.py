"""Sources that read the records of TensorFlow Datasets."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from shift_jax.data.decode.images import EncodedImage, resize_and_center_crop
from shift_jax.data.decode.unreadable import UndecodableError, UnreadableImageError
from shift_jax.data.sources.encoded import CroppedOnReading

if TYPE_CHECKING:
    from shift_jax.data.sources.source import EncodedExample, Example


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """One split of a TFDS dataset whose images have one size. A `Source`."""

    records: Sequence[dict[str, Any]]
    """The images are arrays."""
    num_classes: int
    class_names: tuple[str, ...] | None
    image_shape: tuple[int, int, int]
    eval_crop: float = 1.0

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> "Example":
        record = self.records[index]
        image = record["image"]
        if image.shape != self.image_shape or self.eval_crop != 1:
            image = resize_and_center_crop(image, self.image_shape[0], self.eval_crop)
        return {"image": image, "label": np.int32(record["label"])}


@dataclasses.dataclass(frozen=True)
class EncodedTfdsSource(CroppedOnReading):
    """One split of a TFDS dataset whose images differ in size. A `Source`."""

    name: str
    """Name of the dataset and the split, for messages about its records."""
    records: Sequence[dict[str, Any]]
    """The images are the bytes of their files."""
    num_classes: int
    class_names: tuple[str, ...] | None
    image_shape: tuple[int, int, int]
    eval_crop: float = 1.0

    def __len__(self) -> int:
        return len(self.records)

    def encoded(self, index: int) -> "EncodedExample":
        """Returns the example at `index` with an `EncodedImage`."""
        record = self._record(index)
        try:
            image = EncodedImage(record["image"], self.image_shape[-1])
        except UndecodableError as error:
            raise UnreadableImageError(self.describe(index), str(error)) from error
        return {"image": image, "label": np.int32(record["label"])}

    def describe(self, index: int) -> str:
        """Names the record at `index`."""
        return f"Record {index} of {self.name}"

    def _record(self, index: int) -> dict[str, Any]:
        return self.records[index]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelabeledTfdsSource(EncodedTfdsSource):
    """Some records of a TFDS dataset, with labels that are not their own. A `Source`."""

    positions: np.ndarray
    """int64 [n], positions in the records."""
    labels: np.ndarray
    """int32 [n]."""

    def __len__(self) -> int:
        return len(self.positions)

    def describe(self, index: int) -> str:
        """Names the record at `index`."""
        return super().describe(int(self.positions[index]))

    def _record(self, index: int) -> dict[str, Any]:
        record = self.records[int(self.positions[index])]
        return {"image": record["image"], "label": self.labels[index]}
