"""The digits and folder sources, and the door to all sources. TFDS: test_tfds.py."""

import hashlib
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from shift_jax.data import load_source
from shift_jax.errors import InputError


def assert_refused(sentence, *args, **kwargs):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        load_source(*args, **kwargs)


def assert_is_source(source):
    example = source[len(source) - 1]
    assert set(example) == {"image", "label"}
    assert example["image"].dtype == np.uint8 and example["image"].shape == source.image_shape
    assert isinstance(example["label"], np.int32) and 0 <= example["label"] < source.num_classes
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy) == len(source) and copy.class_names == source.class_names
    np.testing.assert_array_equal(copy[0]["image"], source[0]["image"])


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


# Folders


def save(path, colour, size=(6, 4), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)


@pytest.fixture
def root(tmp_path):
    save(tmp_path / "train/cat/b.png", (1, 2, 3))
    save(tmp_path / "train/cat/a.JPG", (200, 100, 50))
    save(tmp_path / "train/dog/c.pgm", 9, mode="L")
    save(tmp_path / "test/dog/d.bmp", (7, 8, 9))
    (tmp_path / "train/cat/notes.txt").write_text("not an image, and not listed")
    (tmp_path / "train/cat/._b.png").write_bytes(b"what macOS leaves behind")
    (tmp_path / "train/cat/animated.gif").write_bytes(b"not listed in class folders")
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


def test_folder_crops_the_centre_for_evaluation(tmp_path):
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
        "folder images differ in size; set image_size to the side in pixels they should get.",
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
        ".bmp, .jpeg, .jpg, .pgm, .png, .ppm, .tif, .tiff, .webp.",
        "folder",
        "empty",
        data_dir=folder,
        image_size=4,
    )


def test_folder_names_a_file_that_is_no_image(root):
    (root / "test/cat").mkdir()
    (root / "test/cat/broken.png").write_bytes(b"no image")
    source = load_source("folder", "test", data_dir=str(root), image_size=4)
    with pytest.raises(InputError, match="broken.png can not be read as an image .*; replace or"):
        source[0]


def test_folder_names_a_truncated_image(root):
    whole = (root / "test/dog/d.bmp").read_bytes()
    (root / "test/dog/d.bmp").write_bytes(whole[:-20])
    source = load_source("folder", "test", data_dir=str(root), image_size=4)
    with pytest.raises(InputError, match="d.bmp can not be read as an image .*; replace or"):
        source[0]
