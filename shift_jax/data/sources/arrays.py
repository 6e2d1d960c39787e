"""Labeled images in memory."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class ArraySource:
    """Labeled images in memory. A `Source`."""

    images: np.ndarray
    """uint8 [n, H, W, C]."""
    labels: np.ndarray
    """int32 [n]."""
    num_classes: int
    class_names: tuple[str, ...] | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.images.shape[1:]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        return {"image": self.images[index], "label": self.labels[index]}
