"""Labeled images in memory."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from shift_jax.data.sources.source import Example


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

    def __getitem__(self, index: int) -> "Example":
        return {"image": self.images[index], "label": self.labels[index]}
