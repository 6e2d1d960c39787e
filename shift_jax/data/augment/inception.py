"""The ImageNet recipe: a resized crop of random size and shape, a flip, and color changes."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from shift_jax.data.augment.color_jitter import jitter
from shift_jax.data.augment.randaugment import check_randaugment, randaugment
from shift_jax.data.augment.transforms import Transform
from shift_jax.data.decode.images import EncodedImage, check_image_size
from shift_jax.errors import InputError

_TRIES = 10
# Bilinear interpolation reads two neighbors on each axis: up to this reduction it skips next to
# nothing.
_BILINEAR_REDUCTION = 1.5
# Bilinear interpolation to twice the size, followed by the mean of 2×2, reaches twice as far.
_SUPERSAMPLED_REDUCTION = 3.0


@dataclasses.dataclass(frozen=True)
class _RandomResizedCrop:
    size: int
    scale: tuple[float, float]
    ratio: tuple[float, float]
    flip: bool
    color_jitter: float
    randaugment_num_ops: int
    randaugment_magnitude: int

    reads_encoded = True

    def __call__(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        cv2 = single_threaded_opencv()
        image = element["image"]
        encoded = isinstance(image, EncodedImage)
        height, width = image.size if encoded else image.shape[:2]
        box = crop_box(height, width, self.scale, self.ratio, rng)
        if encoded:
            image = image.crop(box, self.size)
        else:
            top, left, height, width = box
            image = image[top : top + height, left : left + width]
        image = resize(image, self.size)
        if self.flip and rng.random() < 0.5:
            image = cv2.flip(image, 1).reshape(image.shape)
        if self.randaugment_num_ops:
            image = randaugment(image, self.randaugment_num_ops, self.randaugment_magnitude, rng)
        if self.color_jitter:
            image = jitter(image, self.color_jitter, rng)
        return {**element, "image": image}


def random_resized_crop(
    size: int,
    *,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    flip: bool = True,
    color_jitter: float = 0.0,
    randaugment_num_ops: int = 0,
    randaugment_magnitude: int = 9,
) -> Transform:
    """Inception's augmentation: a crop of random area and aspect ratio, resized to a square.

    Szegedy et al., Going Deeper with Convolutions, 2015. The crop is drawn as in torchvision's
    `RandomResizedCrop`: up to 10 tries, then the central part with a permitted ratio. The flip,
    RandAugment (`shift_jax.data.augment.randaugment`) and the color jitter follow. Crops are scaled
    bilinearly, with antialiasing if they shrink to less than 1/1.5. From an `EncodedImage`, crops
    of at least twice `size` are decoded at 1/2, 1/4 or 1/8, which moves their edges by up to half a
    pixel of the reduced image.

    Args:
      size: Side of the result in pixels.
      scale: Smallest and largest area of the crop, as fractions of the image.
      ratio: Smallest and largest width / height of the crop.
      flip: Whether to mirror left-right with probability one half.
      color_jitter: Strength s: brightness, contrast and saturation are each multiplied by a
        factor in 1 - s .. 1 + s; 0 turns it off. Needs RGB.
      randaugment_num_ops: RandAugment's N, operations on each image; 0 turns it off. Needs RGB.
      randaugment_magnitude: RandAugment's M, 0..30.

    Returns:
      The transform. It turns an "image", an `EncodedImage` or uint8 [H, W, C], into uint8
      [size, size, C].

    Raises:
      InputError: a size, range or strength is invalid.
    """
    check_image_size(size)
    scale, ratio = _range("crop_scale", scale, 1.0), _range("crop_ratio", ratio, math.inf)
    if not _is_number(color_jitter) or not 0 <= color_jitter <= 1:
        raise InputError(f"color_jitter is {color_jitter!r}; it must be a strength in 0..1.")
    check_randaugment(randaugment_num_ops, randaugment_magnitude)
    return _RandomResizedCrop(
        size, scale, ratio, flip, color_jitter, randaugment_num_ops, randaugment_magnitude
    )


def crop_box(
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    rng: np.random.Generator,
) -> tuple[int, int, int, int]:
    """Draws (top, left, height, width) of a crop in pixels; see `random_resized_crop`."""
    log_ratio = math.log(ratio[0]), math.log(ratio[1])
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(*log_ratio))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            top = int(rng.integers(height - h, endpoint=True))
            return top, int(rng.integers(width - w, endpoint=True)), h, w
    w = max(1, min(width, round(height * ratio[1])))
    h = max(1, min(height, round(width / ratio[0])))
    return (height - h) // 2, (width - w) // 2, h, w


def resize(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes uint8 [H, W, C] to a new array [size, size, C]; see `random_resized_crop`."""
    cv2 = single_threaded_opencv()
    channels = image.shape[-1]
    reduction = max(image.shape[:2]) / size
    if reduction <= _BILINEAR_REDUCTION:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_LINEAR)
    elif reduction <= _SUPERSAMPLED_REDUCTION:
        # Half the cost of INTER_AREA at these ratios, and closer to Pillow's antialiasing.
        image = cv2.resize(image, (2 * size, 2 * size), interpolation=cv2.INTER_LINEAR)
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    else:
        image = cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA)
    # OpenCV drops the axis of a single channel, here and in the flip.
    return image.reshape(size, size, channels)


@functools.cache
def single_threaded_opencv():
    """Returns the module cv2 with its own threads turned off.

    Images are processed in parallel already, and OpenCV's threads would wait for each other by
    spinning.
    """
    import cv2

    cv2.setNumThreads(0)
    return cv2


def _range(name: str, values: Sequence[float], largest: float) -> tuple[float, float]:
    is_pair = isinstance(values, Sequence) and len(values) == 2 and all(map(_is_number, values))
    if not is_pair or not 0 < values[0] <= values[1] <= largest or math.isinf(values[1]):
        limit = " and at most 1" if largest == 1 else ""
        raise InputError(
            f"{name} is {values!r}; it must be two numbers, the smallest and the largest, above "
            f"0{limit}."
        )
    return float(values[0]), float(values[1])


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
