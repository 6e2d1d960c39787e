"""What sources of encoded images share: how an example is read for evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from shift_jax.data.decode.unreadable import UndecodableError, UnreadableImageError

if TYPE_CHECKING:
    from shift_jax.data.sources.source import EncodedSource, Example

    class _CroppedSource(EncodedSource, Protocol):
        @property
        def eval_crop(self) -> float: ...


class CroppedOnReading:
    """A source whose `encoded` examples are scaled and cropped to their central square on reading.

    Attributes:
      eval_crop: Fraction of the shorter side that images keep.
    """

    eval_crop: float = 1.0

    def __getitem__(self: _CroppedSource, index: int) -> Example:
        example = self.encoded(index)
        try:
            image = example["image"].center_crop(self.image_shape[0], self.eval_crop)
        except UndecodableError as error:
            raise UnreadableImageError(self.describe(index), str(error)) from error
        return {"image": image, "label": example["label"]}
