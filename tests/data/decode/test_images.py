"""Decoding: what is equal to decoding all with Pillow, and what is unreadable."""

import io

import numpy as np
import pytest
from PIL import Image

from shift_jax.data.decode import jpeg
from shift_jax.data.decode.images import EncodedImage, resize_and_center_crop
from shift_jax.data.decode.unreadable import UndecodableError
from tests.data.photos import encoded, photos

JPEGS = {
    "4:2:0": {"subsampling": 2},
    "4:4:4": {"subsampling": 0},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_rows": 1},
    "exif": {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
}


def pillow(data, mode="RGB"):
    return np.asarray(Image.open(io.BytesIO(data)).convert(mode))


@pytest.mark.parametrize("kind", JPEGS)
def test_a_jpeg_is_decoded_as_by_pillow(kind):
    # With an EXIF orientation of 6, which is ignored, sides would be swapped.
    data = encoded(photos()[0], **JPEGS[kind])
    image = EncodedImage(data)
    assert image.size == (427, 640)
    np.testing.assert_allclose(image.pixels().astype(int), pillow(data), atol=2)


@pytest.mark.parametrize("kind", JPEGS)
@pytest.mark.parametrize(
    "box", [(0, 0, 50, 60), (13, 101, 200, 333), (227, 40, 200, 600), (0, 0, 427, 640)]
)
def test_a_crop_is_that_of_the_whole_image(kind, box):
    data = encoded(photos()[1], **JPEGS[kind])
    top, left, height, width = box
    whole = pillow(data)[top : top + height, left : left + width].astype(int)
    crop = EncodedImage(data).crop(box, size=400)
    assert crop.shape == whole.shape
    # The fast chroma upsampling shows at sharp colored edges only.
    assert np.abs(crop - whole).mean() < 1.5


@pytest.mark.parametrize(("size", "reduction"), [(100, 2), (50, 4), (25, 8), (102, 1)])
def test_a_large_crop_is_reduced_while_it_is_decoded(size, reduction):
    data = encoded(photos()[0], quality=95)
    box = (17, 30, 203, 402)
    crop = EncodedImage(data).crop(box, size)
    assert crop.shape == (round(203 / reduction), round(402 / reduction), 3)
    whole = Image.fromarray(pillow(data)).crop((30, 17, 432, 220))
    reference = np.asarray(whole.resize(crop.shape[1::-1], Image.Resampling.BOX)).astype(int)
    # The reduced grid is up to half of its pixels beside the box's.
    assert np.abs(crop - reference).mean() < (8 if reduction == 8 else 5)


def test_rows_below_the_crop_are_not_decoded():
    data = encoded(photos()[0])
    header = jpeg.read_header(data)
    upper = jpeg.decode(data, header, 3, bottom=100)
    assert 100 <= len(upper) < 200
    assert len(jpeg.decode(data, header, 3)) == 427


GRAY = np.asarray(Image.fromarray(photos()[0]).convert("L"))
RGBA = np.dstack([photos()[0], np.full((427, 640), 255, np.uint8)])
RGBA[:200, :, 3] = 0


@pytest.mark.parametrize("header_only", [True, False])
def test_gray_becomes_rgb(header_only):
    image = EncodedImage(encoded(GRAY, "JPEG" if header_only else "PNG"))
    pixels = image.pixels()
    assert pixels.shape == (427, 640, 3)
    assert np.abs(pixels.astype(int) - GRAY[..., None]).mean() < 4


def test_one_channel_is_gray():
    for data in (encoded(photos()[0]), encoded(photos()[0], "PNG")):
        pixels = EncodedImage(data, channels=1).pixels()
        assert pixels.shape == (427, 640, 1)
        assert np.abs(pixels[..., 0].astype(int) - GRAY).mean() < 4


def test_cmyk_of_adobe_becomes_rgb():
    data = encoded(Image.fromarray(photos()[0]).convert("CMYK"), quality=95)
    # Pillow writes Adobe's inverted CMYK, with its marker.
    assert b"Adobe" in data[:1000]
    assert np.abs(EncodedImage(data).pixels().astype(int) - photos()[0]).mean() < 3


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bits_are_scaled_to_8(format):
    values = np.linspace(0, 65535, 300 * 256).reshape(300, 256).astype(np.uint16)
    pixels = EncodedImage(encoded(values, format)).pixels()
    np.testing.assert_array_equal(pixels, np.dstack([np.round(values / 257)] * 3))


def test_a_palette_becomes_rgb():
    data = encoded(Image.fromarray(photos()[0]).quantize(64), "PNG")
    np.testing.assert_array_equal(EncodedImage(data).pixels(), pillow(data))


def test_what_is_transparent_is_white():
    pixels = EncodedImage(encoded(RGBA, "PNG")).pixels()
    assert (pixels[:200] == 255).all()
    np.testing.assert_array_equal(pixels[200:], photos()[0][200:])


def test_a_transparent_palette_entry_is_white():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((0, 0), 0)
    pixels = EncodedImage(encoded(palette, "PNG", transparency=0)).pixels()
    assert pixels[0, 0].tolist() == [255, 255, 255] and pixels[1, 1].tolist() == [40, 50, 60]


# Damage

WHOLE = encoded(photos()[0])
DAMAGED = {
    "empty": b"",
    "text": b"not an image at all",
    "start only": WHOLE[:2],
    "header only": WHOLE[:100],
    "cut in the scan": WHOLE[: len(WHOLE) // 2],
    "cut PNG": encoded(photos()[0], "PNG")[:5000],
    "header and rubbish": WHOLE[:300] + b"\0" * 1000,
    "absurd size": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\1\x03\x11\1",
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_is_told(damage):
    for read in (
        lambda: EncodedImage(DAMAGED[damage]).pixels(),
        lambda: EncodedImage(DAMAGED[damage]).crop((0, 0, 50, 50), 50),
        lambda: EncodedImage(DAMAGED[damage]).center_crop(50, 1.0),
    ):
        with pytest.raises(UndecodableError) as caught:
            read()
        assert str(caught.value) and "0x" not in str(caught.value)


def test_bytes_after_the_end_are_no_damage():
    image = EncodedImage(WHOLE + b"\0" * 10)
    assert image.crop((0, 0, 50, 50), 50).shape == (50, 50, 3)
    np.testing.assert_array_equal(image.pixels(), EncodedImage(WHOLE).pixels())


# The center crop of evaluation


def test_resize_crops_the_center_of_the_longer_side():
    columns = np.array([0, 0, 50, 100, 150, 200, 250, 250], np.uint8)
    wide = np.tile(columns, (4, 1))[..., None]
    middle = np.tile(columns[2:6], (4, 1))[..., None]
    np.testing.assert_array_equal(resize_and_center_crop(wide, 4), middle)
    turned = resize_and_center_crop(wide.transpose(1, 0, 2), 4)
    np.testing.assert_array_equal(turned, middle.transpose(1, 0, 2))


@pytest.mark.parametrize("size", [(4, 4), (5, 9), (300, 7), (7, 301), (1, 1), (1, 999)])
@pytest.mark.parametrize("side", [1, 4, 7])
@pytest.mark.parametrize("crop", [1.0, 0.875])
def test_resize_returns_the_size_asked_for(size, side, crop):
    image = np.zeros((*size, 3), np.uint8)
    assert resize_and_center_crop(image, side, crop).shape == (side, side, 3)


def test_the_center_crop_is_that_of_torchvision():
    """Resize(256) and CenterCrop(224), written out."""
    data = encoded(photos()[0])
    resized = Image.fromarray(pillow(data)).resize((384, 256), Image.Resampling.BILINEAR)
    reference = np.asarray(resized.crop((80, 16, 304, 240))).astype(int)
    np.testing.assert_allclose(EncodedImage(data).center_crop(224, 0.875), reference, atol=2)


def test_a_reduced_center_crop_keeps_its_quality():
    data = encoded(np.asarray(Image.fromarray(photos()[0]).resize((1920, 1281))), quality=95)
    reference = resize_and_center_crop(pillow(data), 160, 1.0).astype(int)
    for size, whole in ((160, resize_and_center_crop(EncodedImage(data).pixels(), 160)),):
        crop = EncodedImage(data).center_crop(size, 1.0)
        assert np.abs(crop - reference).mean() < 1
        # It is another way to the same image.
        assert (crop != whole).any()
