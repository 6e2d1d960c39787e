from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from shift_jax import data, model_record
from shift_jax.errors import InputError
from shift_jax.models.classifier import load_shipped_classifier
from tests.data.photos import encoded, photos, write_folder


def record(size=16, channels=3, crop=0.5):
    mean, std = (0.1, 0.2, 0.3)[:channels], (0.5, 0.6, 0.7)[:channels]
    shape = (size, size, channels)
    return SimpleNamespace(image_shape=shape, mean=mean, std=std, crop=crop)


def standardized(pixels, of):
    return (pixels.astype(np.float32) / 255 - np.float32(of.mean)) / np.float32(of.std)


def test_an_image_is_prepared_as_for_evaluation(tmp_path):
    source = data.load_source(
        "folder", "train", data_dir=str(write_folder(tmp_path)), image_size=80, eval_crop=0.875
    )
    of = record(80, crop=0.875)
    expected = standardized(source[0]["image"], of)
    with Image.open(source.describe(0)) as image:
        prepared = data.preprocessor(of)(image)
        from_pixels = data.preprocessor(of)(np.asarray(image))
    assert prepared.dtype == np.float32 and prepared.shape == (80, 80, 3)
    np.testing.assert_allclose(prepared, expected, atol=1e-6)
    np.testing.assert_array_equal(from_pixels, prepared)


def test_records_of_networks_weights_and_classifiers():
    photo = photos()[0]
    assert data.preprocessor(model_record("shiftnet_a"))(photo).shape == (224, 224, 3)
    (digits,) = (each for each in model_record("shiftresnet20").weights if each.tag == "digits")
    assert data.preprocessor(digits)(photo).shape == (8, 8, 1)
    classifier = load_shipped_classifier("shiftresnet20.digits")
    np.testing.assert_array_equal(
        data.preprocessor(classifier)(photo), data.preprocessor(digits)(photo)
    )


def test_a_photo_is_turned_upright():
    photo, of = photos()[0], record()
    exif = Image.Exif()
    exif[0x0112] = 6  # Turn by 90° clockwise to show it.
    lying = Image.open(__import__("io").BytesIO(encoded(np.rot90(photo), "PNG", exif=exif)))
    np.testing.assert_array_equal(data.preprocessor(of)(lying), data.preprocessor(of)(photo))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_modes_of_pillow(mode, channels):
    image = Image.fromarray(photos()[0][:32, :32])
    image = image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode)
    prepared = data.preprocessor(record(channels=channels))(image)
    assert prepared.shape == (16, 16, channels) and np.isfinite(prepared).all()


def test_gray_and_color_of_arrays():
    gray = np.full((20, 20), 51, np.uint8)
    for array in (gray, gray[..., None]):
        assert data.preprocessor(record(channels=1))(array)[0, 0] == pytest.approx([0.2])
        colors = data.preprocessor(record())(array)[0, 0]
        assert colors == pytest.approx([0.2, 0.0, -0.1 / 0.7], abs=1e-6)
    red = np.broadcast_to(np.uint8([255, 0, 0]), (20, 20, 3))
    lightness = data.preprocessor(record(channels=1))(red)[0, 0]
    assert lightness == pytest.approx((76 / 255 - 0.1) / 0.5)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((1, 4, 4, 3), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.uint8(3),
    ],
)
def test_other_arrays_are_refused(array):
    with pytest.raises(InputError, match="expected a Pillow image or uint8 pixels"):
        data.preprocessor(record())(array)


def test_images_that_are_no_squares():
    with pytest.raises(InputError, match="112×96 pixels, expected squares"):
        data.preprocessor(SimpleNamespace(image_shape=(112, 96, 3)))
