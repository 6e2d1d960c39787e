import pickle

import numpy as np
import pytest

from shift_jax.data import pad_crop_flip
from shift_jax.errors import InputError

IMAGE = np.arange(1, 5 * 4 * 3 + 1, dtype=np.uint8).reshape(5, 4, 3)
ELEMENT = {"image": IMAGE, "label": np.int32(7)}


def reference(image, pad, top, left, mirror):
    """Pixel by pixel: the window at (top, left) of the zero-padded image."""
    height, width, _ = image.shape
    out = np.zeros_like(image)
    for y in range(height):
        for x in range(width):
            from_y = top + y - pad
            from_x = left + (width - 1 - x if mirror else x) - pad
            if 0 <= from_y < height and 0 <= from_x < width:
                out[y, x] = image[from_y, from_x]
    return out


def outcomes(pad, flip, draws):
    transform = pad_crop_flip(pad, flip)
    rng = np.random.default_rng(0)
    return [transform(ELEMENT, rng)["image"] for _ in range(draws)]


@pytest.mark.parametrize(("pad", "flip"), [(1, True), (1, False), (2, False), (0, True)])
def test_draws_every_crop_of_the_reference_and_nothing_else(pad, flip):
    offsets = range(2 * pad + 1)
    expected = {
        reference(IMAGE, pad, top, left, mirror).tobytes()
        for top in offsets
        for left in offsets
        for mirror in ((False, True) if flip else (False,))
    }
    drawn = {image.tobytes() for image in outcomes(pad, flip, draws=40 * len(expected))}
    assert drawn == expected


def test_flips_half_of_the_images():
    flipped = [np.array_equal(image, IMAGE[:, ::-1]) for image in outcomes(0, True, draws=2000)]
    assert 0.45 < np.mean(flipped) < 0.55


def test_crops_are_uniform():
    drawn = [image.tobytes() for image in outcomes(1, False, draws=9000)]
    counts = [drawn.count(each) for each in set(drawn)]
    assert len(counts) == 9
    assert min(counts) > 850 and max(counts) < 1150


def test_keeps_label_shape_dtype_and_the_source_image():
    before = IMAGE.copy()
    out = pad_crop_flip(4, True)(ELEMENT, np.random.default_rng(1))
    assert out["label"] == 7
    assert out["image"].shape == IMAGE.shape and out["image"].dtype == np.uint8
    np.testing.assert_array_equal(IMAGE, before)


def test_a_pickled_copy_draws_the_same():
    transform = pad_crop_flip(3, True)
    copy = pickle.loads(pickle.dumps(transform))
    one, other = (each(ELEMENT, np.random.default_rng(5)) for each in (transform, copy))
    np.testing.assert_array_equal(one["image"], other["image"])


@pytest.mark.parametrize("pad", [-1, 1.5])
def test_refuses_a_pad_that_is_no_pixel_count(pad):
    message = f"pad is {pad}; it must be a whole number of pixels, 0 or more."
    with pytest.raises(InputError, match=f"^{message}$"):
        pad_crop_flip(pad, flip=True)
