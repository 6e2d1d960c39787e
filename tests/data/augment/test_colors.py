"""Color jitter beside Pillow's enhancers, and RandAugment's operations."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from shift_jax.data.augment import color_jitter, randaugment
from tests.data.photos import photos

# Not of the full range, so that autocontrast has something to do.
PHOTO = photos()[0][100:200, 200:330] // 2 + 60


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.0, 1.7])
@pytest.mark.parametrize(
    ("function", "enhancer"),
    [
        (color_jitter.brightness, ImageEnhance.Brightness),
        (color_jitter.contrast, ImageEnhance.Contrast),
        (color_jitter.saturation, ImageEnhance.Color),
    ],
)
def test_adjustments_are_pillows(function, enhancer, factor):
    reference = np.asarray(enhancer(Image.fromarray(PHOTO)).enhance(factor)).astype(int)
    np.testing.assert_allclose(function(PHOTO, factor), reference, atol=2)


def test_jitter_draws_factors_from_both_sides_of_one():
    gray = np.full((4, 4, 3), 100, np.uint8)
    rng = np.random.default_rng(0)
    values = [int(color_jitter.jitter(gray, 0.4, rng)[0, 0, 0]) for _ in range(500)]
    assert 59 <= min(values) < 65 and 135 < max(values) <= 141


def test_jitter_applies_in_random_order():
    images = {
        color_jitter.jitter(PHOTO, 0.4, _Fixed(order)).tobytes()
        for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1])
    }
    assert len(images) > 1


class _Fixed:
    """Gives a certain order and the largest factors."""

    def __init__(self, order):
        self.order = order

    def permutation(self, count):
        assert count == 3
        return np.array(self.order)

    def uniform(self, low, high):
        return high


@pytest.mark.parametrize("name", randaugment.OPERATIONS)
def test_operations_do_nothing_at_zero_and_something_at_full(name):
    image = Image.fromarray(PHOTO)
    least, most = (np.asarray(randaugment.apply(image, name, level)) for level in (0.0, 1.0))
    if name not in ("autocontrast", "equalize"):
        # Solarize inverts what is above its threshold, at least pure white.
        unchanged = (least == PHOTO) | (PHOTO == 255)
        assert unchanged.all()
    assert (most != PHOTO).any() == (name != "identity")
    assert most.shape == PHOTO.shape


def test_translations_move_by_the_fraction_of_the_side():
    image = Image.fromarray(PHOTO)
    moved = np.asarray(randaugment.apply(image, "translate_x", 0.5))
    distance = int(0.5 * 150 / 331 * 130)
    np.testing.assert_array_equal(moved[:, :-distance], PHOTO[:, distance:])
    assert not moved[:, -distance:].any()


def test_all_operations_occur_and_both_signs():
    rng = np.random.default_rng(0)
    images = {randaugment.randaugment(PHOTO, 1, 20, rng).tobytes() for _ in range(400)}
    # 9 with two signs and 5 without; solarize may leave this photo as it is.
    assert 22 <= len(images) <= 23
