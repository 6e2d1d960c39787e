"""What sources of encoded images share: how an example is read for evaluation."""

from shift_jax.data.decode.unreadable import UndecodableError, UnreadableImageError


class CroppedOnReading:
    """A source whose `encoded` examples are scaled and cropped to their central square on reading.

    Attributes:
      eval_crop: Fraction of the shorter side that images keep.
    """

    eval_crop: float = 1.0

    def __getitem__(self, index: int) -> dict:
        example = self.encoded(index)
        try:
            image = example["image"].center_crop(self.image_shape[0], self.eval_crop)
        except UndecodableError as error:
            raise UnreadableImageError(self.describe(index), str(error)) from error
        return {**example, "image": image}
