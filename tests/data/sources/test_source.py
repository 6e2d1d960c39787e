"""The digits, and the door to all sources."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from shift_jax.data import load_source
from tests.data.sources.assertions import assert_is_source, assert_refused


def test_importing_the_package_imports_no_data_library():
    code = (
        "import sys, shift_jax.data;"
        "print([m for m in ('grain', 'tensorflow', 'tensorflow_datasets', 'sklearn', 'PIL', 'cv2',"
        " 'simplejpeg') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# Digits


@pytest.fixture(scope="module")
def digits():
    return {split: load_source("digits", split) for split in ("train", "test")}


def test_digits_are_sources(digits):
    for source in digits.values():
        assert_is_source(source)
        assert source.image_shape == (8, 8, 1)
        assert source.num_classes == 10 and source.class_names == tuple("0123456789")


def test_digits_use_the_full_range_of_uint8(digits):
    values = np.unique(digits["train"].images)
    np.testing.assert_array_equal(values, np.round(np.arange(17) * 255 / 16))


def test_digits_splits_hold_every_image_once(digits):
    from sklearn.datasets import load_digits

    def sorted_pairs(images, labels):
        return sorted(
            (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
        )

    data = load_digits()
    scaled = np.round(data.images[..., None] * 255 / 16).astype(np.uint8)
    both = [
        np.concatenate([getattr(s, key) for s in digits.values()]) for key in ("images", "labels")
    ]
    assert sorted_pairs(*both) == sorted_pairs(scaled, data.target)
    assert [len(source) for source in digits.values()] == [1437, 360]


def test_digits_split_is_stratified(digits):
    train, test = (np.bincount(digits[split].labels) for split in ("train", "test"))
    np.testing.assert_allclose(test, 0.2 * (train + test), atol=1)


def test_digits_split_never_changes(digits):
    digest = hashlib.sha256(digits["test"].images.tobytes() + digits["test"].labels.tobytes())
    assert digest.hexdigest()[:16] == "eb33daa4a6fa9662"


def test_digits_refuse_other_splits_and_sizes():
    assert_refused(
        "digits has no split 'tset'; use one of: train, test. Did you mean 'test'?",
        "digits",
        "tset",
    )
    assert_refused(
        "digits are 8x8 images and are not resized; set image_size to None or 8, not 32.",
        "digits",
        "test",
        image_size=32,
    )
    assert_refused(
        "digits are not cropped; set eval_crop to 1, not 0.875.", "digits", "test", eval_crop=0.875
    )


@pytest.mark.parametrize("crop", [0, 1.5, True, "0.9"])
def test_a_crop_that_is_no_fraction_is_refused(crop):
    assert_refused(
        f"eval_crop is {crop!r}; it must be a fraction of the shorter side, above 0 and at most 1.",
        "digits",
        "test",
        eval_crop=crop,
    )
