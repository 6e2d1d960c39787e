"""Bringing decoded images to one size. Needs Pillow."""

from typing import TYPE_CHECKING

from shift_jax.errors import InputError

if TYPE_CHECKING:
    from PIL import Image


def check_image_size(image_size: int) -> None:
    """Raises InputError unless `image_size` is a whole number of pixels, at least 1."""
    if not isinstance(image_size, int) or image_size < 1:
        raise InputError(
            f"image_size is {image_size!r}; it must be a whole number of pixels, at least 1."
        )


def resize_and_centre_crop(image: "Image.Image", size: int) -> "Image.Image":
    """Scales the shorter side to `size` pixels (bilinear, antialiased), then crops the centre.

    Args:
      image: A Pillow image of any size and mode.
      size: Side of the result in pixels.

    Returns:
      A `size` x `size` image of the same mode.
    """
    from PIL import Image

    scale = size / min(image.size)
    # max: rounding must not leave a very long image one pixel short.
    width, height = (max(size, round(side * scale)) for side in image.size)
    left, top = (width - size) // 2, (height - size) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))
