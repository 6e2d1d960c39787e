import unicodedata
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from absl import logging
from PIL import Image

from shift_jax.data import load_photos, read_photo, train_batches
from shift_jax.data.augment.inception import random_resized_crop
from shift_jax.errors import InputError
from tests.data.photos import encoded, photos


@pytest.fixture
def folder(tmp_path):
    for i in range(6):
        path = tmp_path / ("a" if i % 2 else "b") / "deep" / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(photos()[i % 2][20 * i : 20 * i + 90, : 100 + i]))
    (tmp_path / "notes.txt").write_text("no photo")
    return tmp_path


def names(source):
    return {source.describe(i) for i in range(len(source))}


def test_a_folder_is_split_by_names_alone(folder, tmp_path_factory):
    train, test = (
        load_photos("photos", split, data_dir=str(folder), image_size=16, held_out=2)
        for split in ("train", "test")
    )
    assert len(train) == 4 and len(test) == 2 and not names(train) & names(test)
    assert train[0]["image"].shape == (16, 16, 3) and train[0]["label"] == 0
    moved = tmp_path_factory.mktemp("elsewhere") / "photos"
    folder.rename(moved)
    again = load_photos("photos", "test", data_dir=str(moved), image_size=16, held_out=2)
    assert {n.replace(str(moved), str(folder)) for n in names(again)} == names(test)


def test_thumbnails_are_no_photos_and_other_files_are_told(folder, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    (folder / "a/@eaDir/1.jpg").mkdir(parents=True)
    (folder / "a/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg").write_bytes(encoded(photos()[0]))
    for split, count in (("train", 4), ("test", 2)):
        source = load_photos("photos", split, data_dir=str(folder), image_size=16, held_out=2)
        assert len(source) == count
    assert said == [f"{folder}: ignoring 1 file without an image extension, such as notes.txt."]


def test_the_draw_does_not_depend_on_the_normal_form_of_names(tmp_path):
    drawn = []
    for form in ("NFC", "NFD"):
        folder = tmp_path / form
        folder.mkdir()
        for letter in "àâäéèêëîïôöùûü":
            (folder / f"{unicodedata.normalize(form, letter)}.jpg").write_bytes(b"")
        source = load_photos("photos", "test", data_dir=str(folder), image_size=16, held_out=4)
        drawn.append([unicodedata.normalize("NFC", Path(each).stem) for each in source.paths])
    assert drawn[0] == drawn[1]


def test_crops_are_taken_from_the_whole_photo(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (3, 200, 200, 3), np.uint8)
    for i, image in enumerate(noise):
        (tmp_path / f"{i}.png").write_bytes(encoded(image, "PNG"))
    source = load_photos("photos", "train", data_dir=str(tmp_path), image_size=24, held_out=1)
    part = random_resized_crop(24, scale=(0.05, 0.08), flip=False)
    batch = next(train_batches(source, part, batch_size=2, seed=0))
    # Scaled down to 24 pixels, noise is almost gray.
    assert source[0]["image"].std() < 15 and batch["image"].std() > 20


def test_tfds_photos_need_no_labels():
    with tfds.testing.mock_data(num_examples=3):
        source = load_photos("coco", "train", data_dir=None, image_size=20)
        assert len(source) == 3 and source[2]["image"].shape == (20, 20, 3)
        assert source[2]["label"] == 0 and source.describe(1) == "Record 1 of coco train"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"data_dir": None}, "photos need data_dir: set it to the folder"),
        ({"data_dir": "nowhere"}, "nowhere is not a folder"),
        ({"held_out": 0}, "Cannot hold out 0 of the 6 photos"),
        ({"held_out": 6}, "Cannot hold out 6 of the 6 photos"),
        ({"split": "validation"}, "no split 'validation': use 'train' or 'test'"),
        ({"image_size": 0}, "image_size is 0"),
        ({"name": "coco2"}, "There is no dataset 'coco2'"),
    ],
)
def test_what_does_not_fit(folder, arguments, message):
    arguments = {"name": "photos", "split": "train", "data_dir": str(folder)} | arguments
    arguments = {"image_size": 16, "held_out": 2} | arguments
    with pytest.raises(InputError, match=message):
        load_photos(arguments.pop("name"), arguments.pop("split"), **arguments)


def test_one_picture_is_scaled_down_and_never_up(tmp_path):
    path = tmp_path / "style.png"
    Image.fromarray(photos()[0]).save(path)
    np.testing.assert_array_equal(read_photo(path), photos()[0])
    assert read_photo(path, 100).shape == (100, round(640 * 100 / 427), 3)
    with pytest.raises(InputError, match="has 640x427 pixels, too few to scale it down to 500"):
        read_photo(path, 500)
    with pytest.raises(InputError, match="There is no image .*none.png: name an image file"):
        read_photo(tmp_path / "none.png")
    with pytest.raises(InputError, match="style.png cannot be scaled to a size of -5 pixels"):
        read_photo(path, -5)
    path.write_bytes(b"text")
    with pytest.raises(InputError, match="style.png cannot be read as an image"):
        read_photo(path)


def test_one_picture_is_turned_as_its_exif_data_say(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # Its right side is at the bottom of what is stored.
    photo = photos()[0][:60, :100]
    Image.fromarray(photo).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_photo(tmp_path / "a.png"), np.rot90(photo, -1))
