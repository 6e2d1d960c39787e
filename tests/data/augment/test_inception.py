import dataclasses
import math
import re

import numpy as np
import pytest
from PIL import Image

from shift_jax.data import random_resized_crop
from shift_jax.data.augment.inception import crop_box, resize
from shift_jax.data.decode.images import EncodedImage
from shift_jax.errors import InputError
from tests.data.photos import encoded, photos


def boxes(height, width, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), draws=4000):
    rng = np.random.default_rng(0)
    return np.array([crop_box(height, width, scale, ratio, rng) for _ in range(draws)])


def test_areas_are_uniform_and_ratios_log_uniform():
    # On a square of this size every second area or more fits at the first try.
    top, left, height, width = boxes(1000, 1000, scale=(0.1, 0.5)).T
    assert (top >= 0).all() and (top + height <= 1000).all()
    assert (left >= 0).all() and (left + width <= 1000).all()
    for values, low, high in (
        (height * width / 1e6, 0.1, 0.5),
        (np.log(width / height), math.log(3 / 4), math.log(4 / 3)),
    ):
        assert low - 0.01 < values.min() and values.max() < high + 0.01
        shares = np.histogram(values, bins=4, range=(low, high))[0] / len(values)
        np.testing.assert_allclose(shares, 0.25, atol=0.03)


def test_positions_are_uniform():
    top, left, height, width = boxes(400, 400, scale=(0.1, 0.3)).T
    for position in (top / (400 - height), left / (400 - width)):
        shares = np.histogram(position, bins=4, range=(0, 1))[0] / len(position)
        np.testing.assert_allclose(shares, 0.25, atol=0.03)


@pytest.mark.parametrize(
    ("height", "width", "box"), [(10, 100, (0, 43, 10, 13)), (100, 10, (43, 0, 13, 10))]
)
def test_what_never_fits_becomes_the_center(height, width, box):
    assert {tuple(each) for each in boxes(height, width, (1.0, 1.0), draws=20)} == {box}


def test_a_single_pixel_is_a_crop():
    assert set(map(tuple, boxes(1, 1, draws=20))) == {(0, 0, 1, 1)}


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.3, 1.8, 2.5, 3.5])
def test_resize_is_near_pillows_antialiased_one(factor):
    side = round(100 * factor)
    image = photos()[1][40 : 40 + side, 100 : 100 + side]
    resized = resize(image, 100)
    reference = np.asarray(Image.fromarray(image).resize((100, 100), Image.Resampling.BILINEAR))
    assert resized.dtype == np.uint8 and resized.shape == (100, 100, 3)
    assert np.abs(resized.astype(int) - reference).mean() < 2.5
    assert resize(image[..., :1], 50).shape == (50, 50, 1)


ELEMENT = {"image": EncodedImage(encoded(photos()[0])), "label": np.int32(3)}


def draw(seed=0, element=ELEMENT, size=64, **kwargs):
    return random_resized_crop(size, **kwargs)(element, np.random.default_rng(seed))


def test_the_same_numbers_give_the_same_image_and_others_another():
    for kwargs in ({}, {"color_jitter": 0.4}, {"randaugment_num_ops": 2}):
        image = draw(**kwargs)["image"]
        assert image.shape == (64, 64, 3) and image.dtype == np.uint8
        np.testing.assert_array_equal(image, draw(**kwargs)["image"])
        assert (image != draw(1, **kwargs)["image"]).any()
    assert draw()["label"] == 3


def test_encoded_and_decoded_images_give_nearly_the_same():
    decoded = {**ELEMENT, "image": ELEMENT["image"].pixels()}
    for seed in range(5):
        image, other = (draw(seed, element)["image"] for element in (ELEMENT, decoded))
        assert np.abs(image.astype(int) - other).mean() < 6


def test_half_are_mirrored():
    ramp = np.tile(np.arange(200, dtype=np.uint8), (200, 1))[..., None]
    images = [draw(seed, {"image": ramp})["image"][0, :, 0] for seed in range(400)]
    rising = [int(row[-1]) > int(row[0]) for row in images]
    assert 0.4 < np.mean(rising) < 0.6
    assert all(
        int(row[-1]) > int(row[0])
        for row in (draw(seed, {"image": ramp}, flip=False)["image"][0, :, 0] for seed in range(50))
    )


def test_jitter_and_randaugment_change_colors_and_not_the_crop():
    plain = draw()["image"]
    for kwargs in ({"color_jitter": 0.4}, {"randaugment_num_ops": 3}):
        assert (draw(**kwargs)["image"] != plain).any()
    np.testing.assert_array_equal(draw(randaugment_magnitude=30)["image"], plain)


def test_the_image_given_is_not_written_to():
    image = photos()[0].copy()
    image.setflags(write=False)
    draw(element={"image": image}, color_jitter=0.5, randaugment_num_ops=2)


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        ({"size": 0}, "image_size is 0; it must be a whole number of pixels, at least 1."),
        (
            {"scale": (0.5, 0.2)},
            "crop_scale is (0.5, 0.2); it must be two numbers, the smallest and the largest, above "
            "0 and at most 1.",
        ),
        ({"scale": (0.0, 1.0)}, None),
        ({"scale": (0.1, 1.1)}, None),
        ({"scale": (0.1,)}, None),
        (
            {"ratio": (2, "3")},
            "crop_ratio is (2, '3'); it must be two numbers, the smallest and the largest, above "
            "0.",
        ),
        ({"color_jitter": 1.5}, "color_jitter is 1.5; it must be a strength in 0..1."),
        (
            {"randaugment_num_ops": 1.5},
            "randaugment_num_ops is 1.5; it must be a whole number, 0 or more.",
        ),
        (
            {"randaugment_magnitude": 31},
            "randaugment_magnitude is 31; it must be a whole number in 0..30.",
        ),
    ],
)
def test_wrong_values_are_refused_at_once(kwargs, sentence):
    kwargs = {"size": 8} | kwargs
    with pytest.raises(InputError, match=sentence and f"^{re.escape(sentence)}$"):
        random_resized_crop(kwargs.pop("size"), **kwargs)


def test_the_transform_is_a_value():
    assert random_resized_crop(8) == random_resized_crop(8)
    assert dataclasses.replace(random_resized_crop(8), size=9) == random_resized_crop(9)
