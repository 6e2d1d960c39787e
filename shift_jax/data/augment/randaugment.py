"""RandAugment (Cubuk et al., 2020), with the operations and ranges of torchvision.

It applies N operations, each drawn from 14 with equal probability, all at the same magnitude M in
0..30. Signed magnitudes are negated half of the time. Pixels from outside the image are black.
"""

from typing import TYPE_CHECKING

import numpy as np

from shift_jax.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

MAX_MAGNITUDE = 30
# The paper's largest shift: 150 of the 331 pixels of AutoAugment's training images.
_MAX_TRANSLATION = 150 / 331
_MAX_SHEAR = 0.3
_MAX_ROTATION_DEGREES = 30.0
_MAX_ENHANCEMENT = 0.9

_SIGNED = (
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "rotate",
    "brightness",
    "color",
    "contrast",
    "sharpness",
)
OPERATIONS = (*_SIGNED, "identity", "posterize", "solarize", "autocontrast", "equalize")


def check_randaugment(num_ops: int, magnitude: int) -> None:
    """Raises InputError unless N is a whole number, 0 or more, and M a whole number in 0..30."""
    for name, value, largest in (
        ("randaugment_num_ops", num_ops, None),
        ("randaugment_magnitude", magnitude, MAX_MAGNITUDE),
    ):
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not is_whole or value < 0 or (largest is not None and value > largest):
            limit = ", 0 or more" if largest is None else f" in 0..{largest}"
            raise InputError(f"{name} is {value!r}; it must be a whole number{limit}.")


def randaugment(
    image: np.ndarray, num_ops: int, magnitude: int, rng: np.random.Generator
) -> np.ndarray:
    """Applies `num_ops` randomly drawn operations.

    Args:
      image: uint8 [H, W, 3], RGB.
      num_ops: The paper's N.
      magnitude: The paper's M, 0..30.
      rng: Draws the operations and the signs.

    Returns:
      A new uint8 [H, W, 3].
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(image))
    for _ in range(num_ops):
        name = OPERATIONS[rng.integers(len(OPERATIONS))]
        sign = -1 if name in _SIGNED and rng.random() < 0.5 else 1
        picture = apply(picture, name, sign * magnitude / MAX_MAGNITUDE)
    return np.asarray(picture)


def apply(image: "Image.Image", name: str, level: float) -> "Image.Image":
    """Applies one operation.

    Args:
      image: An RGB image.
      name: One of `OPERATIONS`.
      level: Fraction of the operation's largest magnitude, in 0..1, or in -1..1 if the sign
        matters.

    Returns:
      The new image.
    """
    from PIL import ImageEnhance, ImageOps

    match name:
        case "shear_x":
            return _affine(image, 1, level * _MAX_SHEAR, 0, 0, 1, 0)
        case "shear_y":
            return _affine(image, 1, 0, 0, level * _MAX_SHEAR, 1, 0)
        case "translate_x":
            return _affine(image, 1, 0, int(level * _MAX_TRANSLATION * image.width), 0, 1, 0)
        case "translate_y":
            return _affine(image, 1, 0, 0, 0, 1, int(level * _MAX_TRANSLATION * image.height))
        case "rotate":
            return image.rotate(level * _MAX_ROTATION_DEGREES)
        case "brightness":
            return ImageEnhance.Brightness(image).enhance(1 + level * _MAX_ENHANCEMENT)
        case "color":
            return ImageEnhance.Color(image).enhance(1 + level * _MAX_ENHANCEMENT)
        case "contrast":
            return ImageEnhance.Contrast(image).enhance(1 + level * _MAX_ENHANCEMENT)
        case "sharpness":
            return ImageEnhance.Sharpness(image).enhance(1 + level * _MAX_ENHANCEMENT)
        case "posterize":
            return ImageOps.posterize(image, 8 - round(4 * level))
        case "solarize":
            threshold = 255 * (1 - level)  # Pillow compares with it and asks no integer.
            return ImageOps.solarize(image, threshold)  # pyright: ignore[reportArgumentType]
        case "autocontrast":
            return ImageOps.autocontrast(image)
        case "equalize":
            return ImageOps.equalize(image)
    return image


def _affine(image: "Image.Image", *coefficients: float) -> "Image.Image":
    from PIL import Image

    # Nearest-neighbor interpolation is torchvision's default, too.
    return image.transform(
        image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.NEAREST
    )
