"""Decoding with Pillow what the fast path does not take: every other format and odd JPEGs."""

import io
from typing import TYPE_CHECKING

import numpy as np

from shift_jax.data.decode.unreadable import UndecodableError

if TYPE_CHECKING:
    from PIL import Image


def decode(data: bytes, channels: int) -> np.ndarray:
    """Decodes an image of any format and mode that Pillow knows.

    CMYK and YCCK JPEGs follow Adobe's convention. 16-bit grey values are scaled to 8 bits.
    Transparency is laid over white. EXIF orientation is ignored, as in ImageNet practice.

    Args:
      data: The encoded image.
      channels: 3 for RGB, 1 for grey.

    Returns:
      uint8 [H, W, channels].

    Raises:
      UndecodableError: the image is damaged or cut off, or none at all.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return as_array(_on_white(image), channels)
    except MemoryError:
        raise
    # Given damaged files, Pillow's readers raise almost anything.
    except Exception as error:
        reason = "it is empty" if not data else str(error) or type(error).__name__
        # Pillow names the object it read from, whose address differs in every run.
        raise UndecodableError(reason.split(" <_io.BytesIO")[0]) from error


def as_array(image: "Image.Image", channels: int) -> np.ndarray:
    """Returns a Pillow image as uint8 [H, W, channels], RGB for 3 and grey for 1."""
    pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _on_white(image: "Image.Image") -> "Image.Image":
    """The image without transparency, at 8 bits."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers without a known range")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        # 257 = 65535 / 255; rounded. "I" also holds 16 bits, in 32.
        return Image.fromarray(((values.clip(0, 65535) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
