"""TFDS sets: a tiny one prepared here, TFDS's own mocks, and the real CIFAR-100 if present."""

import dataclasses
import itertools
import pathlib
import pickle
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds

from shift_jax.data import (
    EncodedSource,
    UnreadableImageError,
    load_identities,
    load_source,
    pad_crop_flip,
    random_resized_crop,
    train_batches,
)
from shift_jax.errors import InputError


class TinyDigits(tfds.core.GeneratorBasedBuilder):
    """Gray 6x6 images; example i of a split has the value i and the label i % 2."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE = (6, 6, 1)

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=self.SHAPE),
            "label": tfds.features.ClassLabel(names=["even", "odd"]),
            "id": np.int64,
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(5), "test": self._generate_examples(3)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": np.full(self.shape(i), i, np.uint8), "label": i % 2, "id": i}

    def shape(self, i):
        return self.SHAPE


class TinySizes(TinyDigits):
    """As TinyDigits, in RGB and with a width of its own for every image."""

    VERSION = tfds.core.Version("1.0.0")
    SHAPE = (None, None, 3)

    def shape(self, i):
        return (6, 7 + i, 3)


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("array_record")
    for builder in (TinyDigits, TinySizes):
        builder(data_dir=folder, file_format="array_record").download_and_prepare()
    return str(folder)


@pytest.fixture(scope="module")
def tfrecord_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfrecord")
    TinyDigits(data_dir=folder, file_format="tfrecord").download_and_prepare()
    return str(folder)


def assert_refused(sentence, name, split, **kwargs):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        load_source(name, split, **kwargs)


def value(example):
    return int(example["image"].max())


def test_a_prepared_set_is_a_source(data_dir):
    source = load_source("tiny_digits", "train", data_dir=data_dir)
    assert len(source) == 5 and source.image_shape == (6, 6, 1)
    assert source.num_classes == 2 and source.class_names == ("even", "odd")
    examples = [source[i] for i in range(5)]
    assert sorted(map(value, examples)) == [0, 1, 2, 3, 4]
    for example in examples:
        assert set(example) == {"image", "label"}
        assert example["image"].dtype == np.uint8 and example["image"].shape == (6, 6, 1)
        assert isinstance(example["label"], np.int32) and example["label"] == value(example) % 2


def test_a_pickled_copy_reads_the_same(data_dir):
    source = load_source("tiny_digits", "train", data_dir=data_dir)
    copy = pickle.loads(pickle.dumps(source))
    assert [value(copy[i]) for i in range(5)] == [value(source[i]) for i in range(5)]


def test_splits_can_be_sliced(data_dir):
    sizes = [
        len(load_source("tiny_digits", split, data_dir=data_dir))
        for split in ("train[:80%]", "train[80%:]", "train+test")
    ]
    assert sizes == [4, 1, 8]


def test_images_of_different_sizes_are_cropped_to_one(data_dir):
    source = load_source("tiny_sizes", "train", data_dir=data_dir, image_size=3)
    assert source.image_shape == (3, 3, 3)
    for i in range(5):
        example = source[i]
        assert example["image"].shape == (3, 3, 3) and example["image"].dtype == np.uint8
        assert np.unique(example["image"]).size == 1 and value(example) % 2 == example["label"]


def test_a_resized_gray_image_stays_gray(data_dir):
    source = load_source("tiny_digits", "train", data_dir=data_dir, image_size=12)
    assert source.image_shape == (12, 12, 1) and source[0]["image"].shape == (12, 12, 1)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_tfds_mocks_are_sources(name):
    with tfds.testing.mock_data(num_examples=7):
        source = load_source(name, "train")
        example = source[0]
    assert len(source) == 7 and source.image_shape == (32, 32, 3)
    assert source.num_classes == int(name.removeprefix("cifar"))
    assert example["image"].shape == (32, 32, 3) and example["image"].dtype == np.uint8


def test_imagenet2012_hands_over_encoded_images():
    with tfds.testing.mock_data(num_examples=7):
        source = load_source("imagenet2012", "train", image_size=32, eval_crop=0.875)
        example, encoded = source[0], source.encoded(0)
        batches = train_batches(source, random_resized_crop(32), batch_size=4, seed=0)
        batch = next(batches)
        batches.close()
    assert isinstance(source, EncodedSource)
    assert len(source) == 7 and source.image_shape == (32, 32, 3) and source.num_classes == 1000
    assert example["image"].shape == (32, 32, 3) and example["image"].dtype == np.uint8
    pixels = encoded["image"].pixels()
    assert pixels.shape[:2] == encoded["image"].size and pixels.shape[2] == 3
    assert encoded["label"] == example["label"]
    assert batch["image"].shape == (4, 32, 32, 3) and batch["image"].dtype == np.uint8


def test_the_mock_of_lfw_is_a_source_of_identities():
    with tfds.testing.mock_data(num_examples=5):
        source = load_identities("lfw", None, 32)
        assert len(source) == source.num_classes == 5
        assert sorted(source.labels) == list(range(5))
        assert source[4]["image"].shape == (32, 32, 3)


def test_a_damaged_record_is_named(data_dir):
    source = load_source("tiny_sizes", "train", data_dir=data_dir, image_size=3)
    damaged = dataclasses.replace(source, records=[{"image": b"nothing", "label": 0}])
    with pytest.raises(UnreadableImageError, match="Record 0 of tiny_sizes train cannot be read"):
        damaged[0]
    with pytest.raises(UnreadableImageError, match="Record 0 of tiny_sizes train cannot be read"):
        damaged.encoded(0)


# Errors


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(InputError) as caught:
        load_source("cifar1000", "train")
    assert str(caught.value).startswith(
        "There is no dataset 'cifar1000'; expected digits, folder, synthetic or a name from "
        "tfds.list_builders(). Did you mean 'cifar100' or "
    )
    with pytest.raises(InputError, match="Did you mean 'folder'"):
        load_source("foldre", "train")


def test_an_unknown_config_or_version_says_why():
    assert_refused(
        "TFDS cannot open 'cifar100:1.0.0': Dataset cifar100 cannot be loaded at version 1.0.0, "
        "only: 3.0.2; expected name, name/config or name:version.",
        "cifar100:1.0.0",
        "train",
    )
    with pytest.raises(InputError, match="^TFDS cannot open 'a b': .*; expected name, "):
        load_source("a b", "train")


def test_an_unprepared_set_comes_with_a_command_that_prepares_it(tmp_path, monkeypatch):
    sentence = (
        f"tiny_digits is not prepared in {tmp_path}/tiny_digits/1.0.0; prepare it (this downloads) "
        "with: python -c \"import tensorflow_datasets as tfds; tfds.builder('tiny_digits', "
        f"data_dir='{tmp_path}', file_format='array_record').download_and_prepare()\""
    )
    assert_refused(sentence, "tiny_digits", "train", data_dir=str(tmp_path))
    exec(re.search('python -c "(.*)"$', sentence)[1])
    assert len(load_source("tiny_digits", "train", data_dir=str(tmp_path))) == 5


def test_a_set_without_random_access_comes_with_the_conversion(tfrecord_dir):
    folder = f"{tfrecord_dir}/tiny_digits/1.0.0"
    assert_refused(
        f"tiny_digits in {folder} is stored as tfrecord, which cannot be read by index; convert "
        "it (after pip install apache-beam) with: "
        "python -m tensorflow_datasets.scripts.convert_format "
        f"--dataset_version_dir={folder} --out_file_format=array_record",
        "tiny_digits",
        "train",
        data_dir=tfrecord_dir,
    )


def test_a_set_converted_in_place_is_readable(tfrecord_dir, data_dir, tmp_path):
    """What the conversion leaves behind: both formats in one folder, both in its record."""
    import json
    import shutil

    mixed = tmp_path / "tiny_digits/1.0.0"
    shutil.copytree(f"{tfrecord_dir}/tiny_digits/1.0.0", mixed)
    for path in pathlib.Path(data_dir, "tiny_digits/1.0.0").glob("*.array_record*"):
        shutil.copy(path, mixed)
    record = json.loads((mixed / "dataset_info.json").read_text())
    record["alternativeFileFormats"] = ["array_record"]
    (mixed / "dataset_info.json").write_text(json.dumps(record))
    assert len(load_source("tiny_digits", "train", data_dir=str(tmp_path))) == 5


@pytest.mark.parametrize("split", ["trian", "train[", "train[:150%]"])
def test_an_unknown_split_lists_the_splits(data_dir, split):
    with pytest.raises(InputError) as caught:
        load_source("tiny_digits", split, data_dir=data_dir)
    assert str(caught.value).startswith(
        f"tiny_digits has no split {split!r}; it has: test, train, and slices such as "
        "'train[:80%]'."
    )


@pytest.mark.parametrize("split", ["train[:0]", "test[3:]", "train[:1%]"])
def test_an_empty_slice_is_refused(data_dir, split):
    assert_refused(
        f"Split {split!r} of tiny_digits holds no examples; choose a larger slice.",
        "tiny_digits",
        split,
        data_dir=data_dir,
    )


def test_a_set_of_no_images_is_refused():
    assert_refused(
        "imdb_reviews is not an image classification dataset: expected a uint8 'image' and a class "
        "'label', found the features label, text; choose another dataset.",
        "imdb_reviews",
        "train",
    )


def test_image_size_is_asked_for_and_checked(data_dir):
    assert_refused(
        "The images of tiny_sizes differ in size; set image_size to the side in pixels to "
        "resize them to.",
        "tiny_sizes",
        "train",
        data_dir=data_dir,
    )
    assert_refused(
        "image_size is -3; it must be a whole number of pixels, at least 1.",
        "tiny_sizes",
        "train",
        data_dir=data_dir,
        image_size=-3,
    )


# The real thing


def test_real_cifar100(shared_data):
    source = load_source("cifar100", "test", data_dir=str(shared_data / "tfds"))
    assert len(source) == 10_000 and source.image_shape == (32, 32, 3)
    assert source.num_classes == 100 and source.class_names[:2] == ("apple", "aquarium_fish")
    sample = np.stack([source[i]["image"] for i in range(0, 10_000, 20)])
    # The published mean of the training images.
    np.testing.assert_allclose(sample.mean((0, 1, 2)) / 255, [0.5071, 0.4866, 0.4409], atol=0.02)


def test_real_cifar100_trains_alike_with_and_without_workers(shared_data):
    source = load_source("cifar100", "train[:1%]", data_dir=str(shared_data / "tfds"))
    one, other = (
        train_batches(source, pad_crop_flip(4, True), batch_size=128, seed=0, num_workers=workers)
        for workers in (0, 2)
    )
    for batch, same in itertools.islice(zip(one, other, strict=True), 5):
        np.testing.assert_array_equal(batch["image"], same["image"])
        np.testing.assert_array_equal(batch["label"], same["label"])
