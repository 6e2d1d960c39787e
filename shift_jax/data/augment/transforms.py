"""Random transforms of one example, on the host and on uint8.

A transform is a picklable callable `(element, rng) -> element`. It draws random numbers from `rng`
only, and returns new arrays, since sources may hand out views of their own memory. A transform
whose `reads_encoded` is true gets an `EncodedImage` from an `EncodedSource` and decodes it itself.
Normalization is not a transform: images travel to the device as uint8 and are normalized there.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from shift_jax.errors import InputError

Transform = Callable[[dict[str, Any], np.random.Generator], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class _PadCropFlip:
    pad: int
    flip: bool

    def __call__(self, element: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        image = element["image"]
        height, width, channels = image.shape
        padded = np.zeros((height + 2 * self.pad, width + 2 * self.pad, channels), image.dtype)
        padded[self.pad : self.pad + height, self.pad : self.pad + width] = image
        top, left = rng.integers(0, 2 * self.pad, size=2, endpoint=True)
        image = padded[top : top + height, left : left + width]
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        return {**element, "image": image}


def pad_crop_flip(pad: int, flip: bool) -> Transform:
    """Returns the CIFAR recipe: zero padding, a random crop back to size, a horizontal flip.

    Zeros are padded BEFORE normalization, so borders are black, as with torchvision's
    `RandomCrop(32, padding=4)` on a PIL image.

    Args:
      pad: Pixels of zeros added on each side; 0 leaves images in place.
      flip: Whether to mirror left-right with probability one half.

    Returns:
      The transform. It changes "image", uint8 [H, W, C], but not its shape and dtype.

    Raises:
      InputError: `pad` is negative or not a whole number.
    """
    if not isinstance(pad, int) or pad < 0:
        raise InputError(f"pad is {pad!r}; it must be a whole number of pixels, 0 or more.")
    return _PadCropFlip(pad, flip)
