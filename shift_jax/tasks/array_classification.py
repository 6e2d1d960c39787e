"""Classification of images that are in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from shift_jax import data
from shift_jax.tasks.classification import Classification

if TYPE_CHECKING:
    from shift_jax.config import ClassificationConfig


class ArrayClassification(Classification):
    """Classification of images in memory.

    Args:
      config: as for `Classification`; the name and folder of the dataset have no effect.
      sources: the examples of each split by its name. Their images are not cropped.
    """

    def __init__(self, config: ClassificationConfig, sources: Mapping[str, data.Source]):
        super().__init__(config)
        self._sources = sources

    def _load(self, split: str, eval_crop: float) -> data.Source:
        del eval_crop
        return self._sources[split]
