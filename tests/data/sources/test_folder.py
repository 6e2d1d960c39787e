"""Class folders: which files and folders are examples and classes, and what is said of the rest."""

import shutil
import unicodedata

import numpy as np
import pytest
from absl import logging
from PIL import Image

from shift_jax.data import load_source
from shift_jax.errors import InputError
from tests.data.photos import encoded, photos
from tests.data.sources.assertions import assert_is_source, assert_refused

LITTER = (
    "#recycle",
    "$RECYCLE.BIN",
    "$Recycle.Bin",
    ".ipynb_checkpoints",
    "@eaDir",
    "System Volume Information",
    "__MACOSX",
    "lost+found",
)


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    return said


def save(path, color, size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path)


@pytest.fixture
def root(tmp_path):
    save(tmp_path / "train/cat/b.png", (1, 2, 3))
    save(tmp_path / "train/cat/a.JPG", (200, 100, 50))
    save(tmp_path / "train/dog/c.pgm", 9, mode="L")
    save(tmp_path / "test/dog/d.bmp", (7, 8, 9))
    (tmp_path / "train/cat/notes.txt").write_text("not an image, and not listed")
    (tmp_path / "train/cat/._b.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / "train/.cache").mkdir()
    return tmp_path


def test_folder_is_a_source_in_class_then_file_order(root):
    source = load_source("folder", "train", data_dir=str(root), image_size=4)
    assert_is_source(source)
    assert source.class_names == ("cat", "dog") and source.num_classes == 2
    assert [source[i]["label"] for i in range(len(source))] == [0, 0, 1]
    np.testing.assert_allclose(source[0]["image"][0, 0], [200, 100, 50], atol=3)  # JPEG
    np.testing.assert_array_equal(source[1]["image"], np.full((4, 4, 3), [1, 2, 3]))
    np.testing.assert_array_equal(source[2]["image"], np.full((4, 4, 3), 9))


def test_folder_crops_the_center_for_evaluation(tmp_path):
    inner = np.zeros((16, 16, 3), np.uint8)
    inner[4:12, 4:12] = 200
    (tmp_path / "test/a").mkdir(parents=True)
    Image.fromarray(inner).save(tmp_path / "test/a/a.png")
    source = load_source("folder", "test", data_dir=str(tmp_path), image_size=8, eval_crop=0.5)
    np.testing.assert_array_equal(source[0]["image"], np.full((8, 8, 3), 200))


def test_folder_labels_agree_between_splits(root):
    source = load_source("folder", "test", data_dir=str(root), image_size=4)
    assert source.class_names == ("cat", "dog") and source[0]["label"] == 1


def test_folder_is_listed_once(root):
    source = load_source("folder", "train", data_dir=str(root), image_size=4)
    save(root / "train/cat/later.png", (0, 0, 0))
    assert len(source) == 3


def test_folder_refuses_what_leads_to_no_image(root):
    folder = str(root)
    assert_refused(
        "folder images differ in size; set image_size to the side in pixels to resize them to.",
        "folder",
        "train",
        data_dir=folder,
    )
    assert_refused(
        "image_size is 0; it must be a whole number of pixels, at least 1.",
        "folder",
        "train",
        data_dir=folder,
        image_size=0,
    )
    assert_refused(
        "folder needs data_dir: the folder that holds <split>/<class>/<image>.",
        "folder",
        "train",
        image_size=4,
    )
    assert_refused(
        f"data_dir {root / 'nowhere'} is not a folder; it should hold <split>/<class>/<image>.",
        "folder",
        "train",
        data_dir=str(root / "nowhere"),
        image_size=4,
    )
    assert_refused(
        f"{folder} has no split folder 'trian'; it has: test, train. Did you mean 'train'?",
        "folder",
        "trian",
        data_dir=folder,
        image_size=4,
    )
    (root / "flat").mkdir()
    assert_refused(
        f"{root / 'flat'} has no class folders; put each image in flat/<class>/.",
        "folder",
        "flat",
        data_dir=folder,
        image_size=4,
    )
    (root / "empty/cat").mkdir(parents=True)
    assert_refused(
        f"The class folders of {root / 'empty'} hold no images; add files ending in "
        ".avif, .bmp, .gif, .j2k, .jfif, .jp2, .jpe, .jpeg, .jpg, .pbm, .pgm, .png, .pnm, .ppm, "
        ".tga, .tif, .tiff, .webp.",
        "folder",
        "empty",
        data_dir=folder,
        image_size=4,
    )


def test_folder_names_a_file_that_is_no_image(root):
    (root / "test/cat").mkdir()
    (root / "test/cat/broken.png").write_bytes(b"no image")
    source = load_source("folder", "test", data_dir=str(root), image_size=4)
    with pytest.raises(InputError, match="broken.png cannot be read as an image .*; replace or"):
        source[0]


def test_folder_names_a_truncated_image(root):
    whole = (root / "test/dog/d.bmp").read_bytes()
    (root / "test/dog/d.bmp").write_bytes(whole[:-20])
    source = load_source("folder", "test", data_dir=str(root), image_size=4)
    with pytest.raises(InputError, match="d.bmp cannot be read as an image .*; replace or"):
        source[0]


# Which files and folders count


def test_gifs_and_jfifs_are_read(tmp_path):
    cat = photos()[0][:64, :64]
    (tmp_path / "train/cat").mkdir(parents=True)
    (tmp_path / "train/cat/a.jfif").write_bytes(encoded(cat, quality=95))
    frames = [Image.fromarray(each) for each in (cat, photos()[1][:64, :64])]
    animation = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    (tmp_path / "train/cat/b.GIF").write_bytes(animation)
    source = load_source("folder", "train", data_dir=str(tmp_path), image_size=64)
    assert len(source) == 2
    for i in range(2):  # The second frame would be off by dozens.
        assert np.abs(source[i]["image"].astype(int) - cat).mean() < 6


@pytest.mark.parametrize("litter", LITTER)
def test_litter_makes_no_classes_and_no_images(root, litter, warnings):
    before = load_source("folder", "train", data_dir=str(root), image_size=4)
    for place in (litter, f"{litter}/dog", f"train/{litter}", f"train/cat/{litter}"):
        save(root / place / "thumbnail.png", (0, 0, 0))
    for name in ("Thumbs.db", "desktop.ini", ".DS_Store", "Icon\r"):
        (root / "train/cat" / name).write_bytes(b"")
    warnings.clear()
    source = load_source("folder", "train", data_dir=str(root), image_size=4)
    assert source.class_names == ("cat", "dog")
    assert list(map(source.describe, range(3))) == list(map(before.describe, range(3)))
    assert len(source) == 3 and warnings == [
        f"{root}/train: ignoring 1 file without an image extension, such as cat/notes.txt."
    ]
    assert_refused(
        f"{root} has no split folder {litter!r}; it has: test, train.",
        "folder",
        litter,
        data_dir=str(root),
        image_size=4,
    )


def test_classes_come_from_the_splits_used(root):
    save(root / "extras/holiday/1.png", (0, 0, 0))
    kwargs = {"data_dir": str(root), "image_size": 4}
    for split in ("train", "test"):
        source = load_source("folder", split, class_splits=("train", "test"), **kwargs)
        assert source.class_names == ("cat", "dog")
    assert source[0]["label"] == 1
    # One that is absent is of no account, as where only the test images are at hand.
    shutil.rmtree(root / "train")
    source = load_source("folder", "test", class_splits=("train", "test"), **kwargs)
    assert source.class_names == ("dog",)
    source = load_source("folder", "extras", class_splits=("train",), **kwargs)
    assert source.class_names == ("holiday",)


def test_a_split_with_a_class_of_its_own_is_refused(root):
    save(root / "more/dogs/1.png", (0, 0, 0))
    kwargs = {"data_dir": str(root), "image_size": 4, "class_splits": ("train", "test")}
    assert_refused(
        f"{root}/more/dogs holds images, but 'dogs' is not a class of test and train: choose a "
        "split with the same classes. Did you mean 'dog'?",
        "folder",
        "more",
        **kwargs,
    )
    (root / "more/dogs").rename(root / "more/dog")
    (root / "more/empty").mkdir()
    assert load_source("folder", "more", **kwargs)[0]["label"] == 1


def test_names_are_compared_in_one_normal_form(tmp_path, warnings):
    composed, split_up = (unicodedata.normalize(form, "chên") for form in ("NFC", "NFD"))
    assert composed != split_up
    save(tmp_path / "train" / composed / "1.png", (1, 2, 3))
    save(tmp_path / "train/zebra/2.png", (4, 5, 6))
    save(tmp_path / "test" / split_up / "3.png", (7, 8, 9))
    save(tmp_path / "test/zebra/4.png", (7, 8, 9))
    for split in ("train", "test"):
        source = load_source("folder", split, data_dir=str(tmp_path), image_size=4)
        assert source.class_names == (composed, "zebra") and len(source) == 2
    np.testing.assert_array_equal(source[0]["image"], np.full((4, 4, 3), [7, 8, 9]))
    assert source.describe(0) == str(tmp_path / "test" / split_up / "3.png")
    assert not warnings


def test_two_folders_of_one_name_are_refused(tmp_path):
    for form in ("NFC", "NFD"):
        save(tmp_path / "train" / unicodedata.normalize(form, "chên") / "1.png", (1, 2, 3))
    with pytest.raises(InputError, match="train holds two folders named 'chên' that differ only"):
        load_source("folder", "train", data_dir=str(tmp_path), image_size=4)


def test_files_in_the_wrong_place_or_of_other_kinds_are_told(root, warnings):
    (root / "train/cat/notes.txt").unlink()
    save(root / "train/flat.png", (0, 0, 0))
    save(root / "train/dog/deep/er.png", (0, 0, 0))
    (root / "train/list.csv").write_text("a,b")
    (root / "train/cat/new.HEIC").write_bytes(b"")
    (root / "train/dog/deep/notes.txt").write_text("")
    source = load_source("folder", "train", data_dir=str(root), image_size=4)
    assert len(source) == 3
    assert warnings == [
        f"{root}/train: ignoring 2 files not directly in a class folder, such as dog/deep/er.png.",
        f"{root}/train: ignoring 3 files without an image extension, such as cat/new.HEIC.",
    ]


def test_classes_without_images_and_a_single_class_are_told(root, warnings):
    (root / "train/cat/notes.txt").unlink()
    (root / "train/fox").mkdir()
    load_source("folder", "train", data_dir=str(root), image_size=4)
    load_source("folder", "test", data_dir=str(root), image_size=4)
    assert warnings == [
        f"{root}/train has no images of 1 of the 3 classes, such as 'fox'.",
        f"{root}/test has no images of 2 of the 3 classes, such as 'cat'.",
    ]
    shutil.rmtree(root / "train")
    warnings.clear()
    load_source("folder", "test", data_dir=str(root), image_size=4)
    assert warnings == [
        f"{root}/test has a single class, 'dog', so there is nothing to learn: put the images of "
        "each class in a folder of their own."
    ]
