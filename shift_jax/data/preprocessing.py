"""Turns one image into the input of a trained network, as evaluation does."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from shift_jax.data.decode import pillow
from shift_jax.data.decode.images import resize_and_center_crop
from shift_jax.errors import InputError

if TYPE_CHECKING:
    from jaxtyping import Float, UInt8
    from PIL import Image


class InputRecord(Protocol):
    """What the input of a network is: a `WeightRecord`, a `ModelRecord` or a `Classifier` has it.

    Attributes:
      image_shape: (height, width, channels), a square.
      mean, std: of the channels, for pixels in 0..1.
      crop: fraction of an image's shorter side that evaluation keeps.
    """

    @property
    def image_shape(self) -> tuple[int, int, int]: ...

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...

    @property
    def crop(self) -> float: ...


def preprocessor(
    record: InputRecord,
) -> Callable[[Image.Image | np.ndarray], Float[np.ndarray, "h w c"]]:
    """Returns the function from an image to the input of the network that a record describes.

        >>> import numpy as np
        >>> from shift_jax import data, model_record
        >>> prepare = data.preprocessor(model_record("shiftnet_a"))
        >>> prepare(np.zeros((480, 640, 3), np.uint8)).shape
        (224, 224, 3)

    The function scales the shorter side (bilinear, antialiased), crops the center and standardizes
    the channels. It takes a Pillow image of any mode, which it turns upright as its EXIF data say,
    or an array of pixels, uint8 [H, W], [H, W, 1] or [H, W, 3], and returns float32 [h, w, c].
    `np.stack` makes a batch of several results.

    Args:
      record: such as `model_record("shiftnet_a")`, or one of `model_record(name).weights`.

    Raises:
      InputError: the record's images are no squares. The function raises it for other arrays, and
        `UndecodableError` for a Pillow image that is damaged.
    """
    crop = cropper(record)
    return lambda image: standardized(crop(image), record)


def standardized(
    pixels: UInt8[np.ndarray, "*batch h w c"], record: InputRecord
) -> Float[np.ndarray, "*batch h w c"]:
    """Returns the pixels of images, each as `cropper` returns it, as the network reads them."""
    mean, std = np.asarray(record.mean, np.float32), np.asarray(record.std, np.float32)
    return (pixels.astype(np.float32) / 255 - mean) / std


def cropper(record: InputRecord) -> Callable[[Any], UInt8[np.ndarray, "h w c"]]:
    """Returns the part of `preprocessor` before the standardization, from an image to pixels."""
    height, width, channels = record.image_shape
    if height != width:
        raise InputError(
            f"The network takes images of {height}×{width} pixels, expected squares: crop and "
            "standardize the images on your own."
        )
    return lambda image: resize_and_center_crop(_pixels(image, channels), height, record.crop)


def _pixels(image: Any, channels: int) -> np.ndarray:
    """Returns uint8 [H, W, channels] of a Pillow image or of an array."""
    if hasattr(image, "getexif"):
        return pillow.upright(image, channels)
    array = np.asarray(image)
    shape = array.shape if array.ndim == 3 else (*array.shape, 1)
    if array.dtype != np.uint8 or len(shape) != 3 or shape[-1] not in (1, 3) or 0 in shape:
        raise InputError(
            f"The image is an array of {array.dtype} {list(array.shape)}, expected a Pillow image "
            "or uint8 pixels [height, width], [height, width, 1] or [height, width, 3]: convert it."
        )
    if shape[-1] == channels:
        return array.reshape(shape)
    from PIL import Image

    return pillow.as_array(
        Image.fromarray(array if shape[-1] == 3 else array.reshape(shape[:2])), channels
    )
