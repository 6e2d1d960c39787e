"""The 1,797 handwritten 8x8 digits that ship with scikit-learn: real data, no download."""

from collections.abc import Sequence

import numpy as np

from shift_jax.data.sources.arrays import ArraySource
from shift_jax.errors import InputError, did_you_mean

_SPLITS = ("train", "test")
# Fixed, so that no training seed moves an image between train and test.
_SPLIT_SEED = 0
_TEST_FRACTION = 0.2
_MAX_INTENSITY = 16


def load_digits(
    split: str,
    data_dir: str | None,
    image_size: int | None,
    eval_crop: float,
    class_splits: Sequence[str] | None = None,
) -> ArraySource:
    """Opens the stratified "train" (1,437 images) or "test" (360) split.

    Args:
      split: "train" or "test".
      data_dir: Unused: the images are part of scikit-learn.
      image_size: None or 8, the size of the digits.
      eval_crop: 1: digits fill their images.
      class_splits: Unused: both splits have all ten classes.

    Returns:
      The source, whose intensities 0..16 are scaled to 0..255.

    Raises:
      InputError: the split, size or crop is none of these.
    """
    del data_dir, class_splits
    if split not in _SPLITS:
        raise InputError(
            f"digits has no split {split!r}; use one of: {', '.join(_SPLITS)}."
            + did_you_mean(split, _SPLITS)
        )
    if image_size not in (None, 8):
        raise InputError(
            f"digits are 8x8 images and are not resized; set image_size to None or 8, "
            f"not {image_size!r}."
        )
    if eval_crop != 1:
        raise InputError(f"digits are not cropped; set eval_crop to 1, not {eval_crop!r}.")
    import sklearn.datasets
    import sklearn.model_selection

    data = sklearn.datasets.load_digits()
    indices = sklearn.model_selection.train_test_split(
        np.arange(len(data.target)),
        test_size=_TEST_FRACTION,
        stratify=data.target,
        random_state=_SPLIT_SEED,
    )[_SPLITS.index(split)]
    images = np.round(data.images[indices, :, :, None] * (255 / _MAX_INTENSITY))
    labels = data.target[indices].astype(np.int32)
    return ArraySource(images.astype(np.uint8), labels, 10, tuple("0123456789"))
