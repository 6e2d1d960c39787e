"""Random brightness, contrast and saturation, on uint8."""

import numpy as np

# ITU-R 601-2 luma, as in Pillow and torchvision.
_GRAY = np.array([0.299, 0.587, 0.114])


def jitter(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Changes brightness, contrast and saturation in random order, like torchvision's ColorJitter.

    Args:
      image: uint8 [H, W, 3], RGB.
      strength: Each factor is drawn from 1 - strength .. 1 + strength.
      rng: Draws the order and the factors.

    Returns:
      A new uint8 [H, W, 3].
    """
    for which in rng.permutation(3):
        factor = rng.uniform(1 - strength, 1 + strength)
        image = (brightness, contrast, saturation)[which](image, factor)
    return image


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with black: factor 0 is black, 1 the image."""
    return _towards(image, 0.0, factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with the image's mean gray value: factor 0 is all gray, 1 the image."""
    # Pillow rounds it too.
    mean = round(float(image.reshape(-1, 3).mean(axis=0) @ _GRAY))
    return _towards(image, mean, factor)


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """Blends with the gray image: factor 0 is gray, 1 the image."""
    import cv2

    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, gray, 1 - factor, 0)


def _towards(image: np.ndarray, value: float, factor: float) -> np.ndarray:
    """Blends the image with one value, using a table of the 256 results."""
    import cv2

    table = np.arange(256) * factor + (1 - factor) * value
    return cv2.LUT(image, table.round().clip(0, 255).astype(np.uint8))
