import errno
import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from shift_jax.data.decode.photo_files import (
    Photo,
    check_photo_path,
    contact_sheet,
    contact_sheet_size,
    open_photo,
    save_photo,
    with_colors_of,
)
from shift_jax.data.decode.unreadable import UnreadableImageError
from shift_jax.errors import InputError


def pixels(height=4, width=6, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("ending", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_photos_are_turned_as_their_exif_data_say(orientation, ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    original = Image.fromarray(pixels())
    original.putalpha(Image.fromarray(pixels(seed=1)[..., 0]))
    original.save(path, exif=exif, **({"lossless": True} if ending == "webp" else {}))
    original.getexif()[0x0112] = orientation
    upright = ImageOps.exif_transpose(original)
    photo = open_photo(path)
    np.testing.assert_array_equal(photo.alpha, upright.getchannel("A"))
    on_white = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
    np.testing.assert_allclose(photo.pixels, on_white.convert("RGB"), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_turned_too(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    original = Image.fromarray(pixels())
    original.save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling="4:4:4")
    original.getexif()[0x0112] = orientation
    photo = open_photo(tmp_path / "a.jpg")
    np.testing.assert_allclose(photo.pixels, ImageOps.exif_transpose(original), atol=4)


def test_gray_16_bit_and_palettes_become_rgb(tmp_path):
    gray = pixels()[..., 0]
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "deep.png")
    Image.fromarray(gray).convert("P").save(tmp_path / "palette.png")
    for name in ("gray", "deep", "palette"):
        photo = open_photo(tmp_path / f"{name}.png")
        np.testing.assert_array_equal(photo.pixels, np.repeat(gray[..., None], 3, axis=-1))
        assert photo.pixels.dtype == np.uint8 and photo.alpha is None


def test_damaged_exif_data_are_ignored(tmp_path):
    Image.fromarray(pixels()).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\0\0\xff\xff\xff\xff")
    np.testing.assert_array_equal(open_photo(tmp_path / "a.png").pixels, pixels())


def test_max_size_is_of_the_longer_side_and_only_shrinks(tmp_path):
    Image.fromarray(pixels(40, 61)).save(tmp_path / "a.png")
    assert open_photo(tmp_path / "a.png", max_size=30).pixels.shape == (20, 30, 3)
    assert open_photo(tmp_path / "a.png", max_size=61).pixels.shape == (40, 61, 3)
    Image.fromarray(pixels(1, 300)).save(tmp_path / "line.png")
    assert open_photo(tmp_path / "line.png", max_size=100).pixels.shape == (1, 100, 3)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("text.jpg", b"I am not a photo.", "cannot identify image file"),
        ("empty.png", b"", "it is empty"),
        ("missing.jpg", None, "No such file"),
        ("cut.jpg", "half", "truncated"),
    ],
)
def test_files_that_are_no_photos(name, content, reason, tmp_path):
    if content == "half":
        whole = io.BytesIO()
        Image.fromarray(pixels(64, 64)).save(whole, "JPEG")
        content = whole.getvalue()[: len(whole.getvalue()) // 2]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImageError, match=reason) as error:
        open_photo(tmp_path / name)
    assert name in str(error.value)


@pytest.mark.parametrize("ending", ["png", "webp", "tif", "jpg"])
def test_alpha_and_profile_are_written_where_the_format_has_them(ending, tmp_path):
    alpha = np.array([[0, 50, 255], [255, 128, 3]], np.uint8)
    photo = Photo(np.full((2, 3, 3), 99, np.uint8), alpha, b"a color profile")
    path = tmp_path / f"a.{ending.upper()}"
    save_photo(path, photo)
    with Image.open(path) as image:
        assert image.format == {"jpg": "JPEG", "tif": "TIFF"}.get(ending, ending.upper())
        assert image.info["icc_profile"] == b"a color profile"
        assert image.mode == ("RGB" if ending == "jpg" else "RGBA")
        if ending != "jpg":
            np.testing.assert_array_equal(image.getchannel("A"), alpha)
        if ending != "webp":  # WebP changes what is transparent anyway.
            np.testing.assert_allclose(image.convert("RGB"), photo.pixels, atol=1)
    assert open_photo(path).profile == b"a color profile"


ENDINGS = ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "tif", "tiff", "TIF", "bmp", "ppm", "pnm"]
ENDINGS += ["pgm", "pbm", "gif", "tga", "jp2", "j2k", "avif"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_all_that_can_be_written_is_read_again(ending, tmp_path):
    # Of few colors, for GIF, and without sharp edges, for JPEG.
    ramp = np.add.outer(np.arange(20), 3 * np.arange(30)).astype(np.uint8)
    photo = np.stack([ramp, 255 - ramp, ramp // 2 + 60], axis=-1)
    save_photo(tmp_path / f"a.{ending}", Photo(photo, profile=b"a color profile"))
    np.testing.assert_allclose(open_photo(tmp_path / f"a.{ending}").pixels, photo, atol=12)


@pytest.mark.parametrize(
    ("ending", "longest"), [("gif", 65535), ("tga", 65535), ("jpg", 65500), ("webp", 16383)]
)
def test_the_longest_sides_are_the_formats_own(ending, longest, tmp_path):
    path = tmp_path / f"a.{ending}"
    save_photo(path, Photo(np.zeros((1, longest, 3), np.uint8)))
    assert open_photo(path).pixels.shape == (1, longest, 3)
    with pytest.raises(
        InputError, match=f"would be {longest + 1} pixels long, but .* at most {longest}:"
    ):
        check_photo_path(path, (longest + 1, 1))
    with pytest.raises((OSError, ValueError, OverflowError)):
        Image.new("RGB", (longest + 1, 1)).save(path)


def test_names_as_long_as_a_folder_takes_them(tmp_path):
    path = tmp_path / f"{'ä' * 125}a.png"
    assert len(path.name.encode()) == 255
    save_photo(path, Photo(pixels()))
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(InputError, match="cannot be written .File name too long.: name another"):
        check_photo_path(path.with_name(f"a{path.name}"))


def test_what_a_writer_cannot_hold_is_one_sentence(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise ValueError("encoding error 6: PARTITION0_OVERFLOW")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(InputError, match=r"a.webp cannot be written as WEBP \(encoding error 6"):
        save_photo(tmp_path / "a.webp", Photo(pixels()))
    assert list(tmp_path.iterdir()) == []


def test_a_photo_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "a.jpg"
    save_photo(path, Photo(pixels()))
    before = path.read_bytes()

    def fail(file, content):
        with file.open("wb") as opened:
            opened.write(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        save_photo(path, Photo(pixels(seed=1)))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("path", "size", "sentence"),
    [
        ("a.txt", (1, 1), "has an unsupported image extension"),
        ("a", (1, 1), "has an unsupported image extension"),
        # Pillow claims to write these.
        *(
            (f"a.{e}", (1, 1), "has an unsupported image extension")
            for e in ("h5", "pdf", "ico", "wmf", "palm")
        ),
        ("file.png/a.png", (1, 1), "cannot be written .Not a directory.: name another file"),
        ("none/a.jpg", (1, 1), "The folder of .* does not exist"),
        ("folder.png", (1, 1), "is a folder, expected a file to write the photo to"),
        ("a.webp", (20000, 100), "would be 20000 pixels long, but WEBP allows at most 16383"),
    ],
)
def test_paths_that_no_photo_can_be_written_to(path, size, sentence, tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file.png").touch()
    with pytest.raises(InputError, match=sentence):
        check_photo_path(tmp_path / path, size)
    check_photo_path(tmp_path / "a.jpg", (30000, 100))


def test_the_colors_of_one_and_the_lightness_of_another():
    red = np.full((2, 2, 3), (200, 60, 60), np.uint8)
    gray = np.full((2, 2, 3), 130, np.uint8)
    mixed = with_colors_of(red, gray).astype(float)
    # Y = 0.299 R + 0.587 G + 0.114 B of the gray, R − Y and B − Y of the red.
    weights = np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(mixed @ weights, 130, atol=1)
    np.testing.assert_allclose(
        mixed - (mixed @ weights)[..., None], red - (red @ weights)[..., None], atol=2
    )


def test_contact_sheet_has_all_pictures_beside_each_other():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (99, 150, 33)]
    pictures = [(str(c), np.full((300, 600, 3), c, np.uint8)) for c in colors]
    sheet = contact_sheet(pictures, cell_size=200)
    for color in colors:
        ys, xs = np.nonzero((sheet == color).all(-1))
        assert np.ptp(ys) == 99 and np.ptp(xs) == 199
        # The label is above its picture.
        label = sheet[ys.min() - 22 : ys.min(), xs.min() : xs.max()]
        assert (label.max(-1) < 128).any()
    small = contact_sheet([("a", np.zeros((10, 10, 3), np.uint8))])
    assert (small[-20:] == 0).all(-1).sum() >= 100


def test_labels_of_a_contact_sheet_end_before_the_next_cell():
    picture = np.zeros((40, 40, 3), np.uint8)
    for label in ("a style with a rather long name", "x" * 300):
        pictures = [(label, picture), (label, picture)]
        sheet = contact_sheet(pictures)
        assert sheet.shape[:2] == contact_sheet_size([label, label], (40, 40))
        xs = np.nonzero((sheet == 0).all(-1)[-40:].any(0))[0]
        second = xs[np.diff(xs, prepend=-100) > 1][1]
        # White between the first label and the second picture.
        assert (sheet[:30, second - 6 : second - 2] == 255).all()
        assert (sheet[:30, 8 : second - 8] < 128).any()
        assert 2 * 200 < sheet.shape[1] <= 2 * 488 + 8
