"""Decodes with Pillow what the fast path does not take: other formats and unusual JPEGs."""

import contextlib
import io
from typing import TYPE_CHECKING

import numpy as np

from shift_jax.data.decode.unreadable import UndecodableError

if TYPE_CHECKING:
    from PIL import Image

_ORIENTATION = 0x0112  # The tag of EXIF.


def decode(data: bytes, channels: int) -> np.ndarray:
    """Decodes an image of any format and mode that Pillow supports.

    CMYK and YCCK JPEGs follow Adobe's convention. 16-bit gray values are scaled to 8 bits.
    Transparent pixels are blended with white. EXIF orientation is ignored, as is usual for
    ImageNet.

    Args:
      data: The encoded image.
      channels: 3 for RGB, 1 for gray.

    Returns:
      uint8 [H, W, channels].

    Raises:
      UndecodableError: the image is damaged or truncated, or is not an image.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as image:
            return as_array(_on_white(image), channels)
    except MemoryError:
        raise
    # Pillow's readers raise almost anything when a file is damaged.
    except Exception as error:
        reason = "it is empty" if not data else str(error) or type(error).__name__
        # Pillow names the object that it read from, whose address differs in every run.
        raise UndecodableError(reason.split(" <_io.BytesIO")[0]) from error


def upright(image: "Image.Image", channels: int) -> np.ndarray:
    """Returns uint8 [H, W, channels] of an image, turned as its EXIF data say.

    Raises:
      UndecodableError: the image is damaged or truncated.
    """
    try:
        image.load()  # This rotates a TIFF, which then no longer asks for rotation.
        pixels, turned = _on_white(image), turn(image)
    except MemoryError:
        raise
    except Exception as error:
        raise UndecodableError(str(error) or type(error).__name__) from error
    return as_array(pixels if turned is None else pixels.transpose(turned), channels)


def turn(image: "Image.Image") -> "Image.Transpose | None":
    """Returns the transposition that makes the image upright."""
    from PIL.Image import Transpose

    orientation = 1
    # Pillow raises almost anything for damaged EXIF data, which are no reason to refuse a photo.
    with contextlib.suppress(Exception):
        orientation = image.getexif().get(_ORIENTATION, 1)
    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)


def as_array(image: "Image.Image", channels: int) -> np.ndarray:
    """Converts a Pillow image to uint8 [H, W, channels]: RGB for 3, gray for 1."""
    pixels = np.asarray(image.convert("RGB" if channels == 3 else "L"))
    return pixels.reshape(*pixels.shape[:2], channels)


def _on_white(image: "Image.Image") -> "Image.Image":
    """Removes transparency and reduces the image to 8 bits."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers without a known range")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        # 257 = 65535 / 255, and 128 rounds. Mode "I" stores 16-bit values in 32 bits.
        return Image.fromarray(((values.clip(0, 65535) + 128) // 257).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image
