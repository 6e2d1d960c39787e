"""Encoded images: their size, crops of them, and the center crop for evaluation."""

import numpy as np

from shift_jax.data.decode import jpeg, pillow
from shift_jax.errors import InputError

_REDUCTIONS = (8, 4, 2)
# The DCT scales with a box filter. If the bilinear filter still has to reduce the result by this
# factor, an evaluation crop differs by less than the JPEG's own loss.
_EVALUATION_RESERVE = 3


def check_image_size(image_size: int) -> None:
    """Raises InputError unless `image_size` is a whole number of pixels, at least 1."""
    if not isinstance(image_size, int) or image_size < 1:
        raise InputError(
            f"image_size is {image_size!r}; it must be a whole number of pixels, at least 1."
        )


def check_eval_crop(crop: float) -> None:
    """Raises InputError unless `crop` is a fraction of an image's side, above 0, at most 1."""
    is_number = isinstance(crop, int | float) and not isinstance(crop, bool)
    if not is_number or not 0 < crop <= 1:
        raise InputError(
            f"eval_crop is {crop!r}; it must be a fraction of the shorter side, above 0 and at "
            "most 1."
        )


class EncodedImage:
    """An image file in memory, decoded on demand and no further than needed.

    libjpeg-turbo decodes 8-bit gray and color JPEGs. Pillow decodes everything else, and the JPEGs
    that libjpeg-turbo rejects. Truncated images are unreadable even if their upper part could be
    decoded. EXIF orientation is ignored.

    Args:
      data: The bytes of the file.
      channels: Channels of the decoded arrays: 3 for RGB, 1 for gray.

    Raises:
      UndecodableError: the image cannot be read; raised here or by any method that decodes.
    """

    def __init__(self, data: bytes, channels: int = 3):
        self._data = data
        self._channels = channels
        self._header = jpeg.read_header(data)
        self._pixels = None if self._header else pillow.decode(data, channels)

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)."""
        if self._header:
            return self._header[:2]
        height, width = self._decode().shape[:2]
        return height, width

    def pixels(self) -> np.ndarray:
        """Decodes the whole image, uint8 [H, W, channels]."""
        return self._decode()

    def crop(self, box: tuple[int, int, int, int], size: int) -> np.ndarray:
        """Decodes a crop, at reduced size where that saves work.

        Args:
          box: (top, left, height, width) in pixels of the whole image.
          size: Side in pixels to which the caller will resize the crop. Neither side is reduced
            below it.

        Returns:
          uint8 [h, w, channels]: the box at its full size or at 1/2, 1/4 or 1/8 of it.
        """
        top, left, height, width = box
        reduction = next((r for r in _REDUCTIONS if min(height, width) >= r * size), 1)
        pixels, reduction = self._reduced(reduction, bottom=top + height)
        if reduction > 1:
            top, left = round(top / reduction), round(left / reduction)
            height, width = round(height / reduction), round(width / reduction)
        return pixels[top : top + height, left : left + width]

    def center_crop(self, size: int, crop: float) -> np.ndarray:
        """Calls `resize_and_center_crop`, on a reduced image if this one is many times larger."""
        shorter = round(size / crop)
        reduction = next(
            (r for r in _REDUCTIONS if min(self.size) >= r * shorter * _EVALUATION_RESERVE), 1
        )
        return resize_and_center_crop(self._reduced(reduction)[0], size, crop)

    def _reduced(self, reduction: int, bottom: int | None = None) -> tuple[np.ndarray, int]:
        """Decodes down to the row `bottom`; returns the pixels and the actual reduction."""
        if self._pixels is None and self._header:
            pixels = jpeg.decode(
                self._data, self._header, self._channels, bottom=bottom, reduction=reduction
            )
            if pixels is not None:
                return pixels, reduction
        return self._decode(), 1

    def _decode(self) -> np.ndarray:
        if self._pixels is None and self._header:
            self._pixels = jpeg.decode(self._data, self._header, self._channels)
        if self._pixels is None:
            self._pixels = pillow.decode(self._data, self._channels)
        return self._pixels


def resize_and_center_crop(image: np.ndarray, size: int, crop: float = 1.0) -> np.ndarray:
    """Scales the shorter side to size / crop pixels (bilinear, antialiased) and crops the center.

    Size 224 and crop 0.875, for example, resize to 256 and keep the central 224. The result matches
    torchvision's Resize and CenterCrop on Pillow images, up to one pixel where a half is rounded.

    Args:
      image: uint8 [H, W, C], C = 1 or 3.
      size: Side of the result in pixels.
      crop: Fraction of the shorter side to keep.

    Returns:
      uint8 [size, size, C].
    """
    from PIL import Image

    channels = image.shape[-1]
    picture = Image.fromarray(image[..., 0] if channels == 1 else image)
    shorter = round(size / crop)
    scale = shorter / min(picture.size)
    # Without max, rounding could leave a very long image one pixel short.
    width, height = (max(shorter, round(side * scale)) for side in picture.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size))).reshape(
        size, size, channels
    )
