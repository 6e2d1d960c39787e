"""TFDS's LFW as a source of identities."""

import io
import itertools
import re

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.datasets.lfw import lfw_dataset_builder

from shift_jax.data import (
    EncodedSource,
    UnreadableImageError,
    identity_names,
    load_identities,
    load_source,
    random_resized_crop,
    train_batches,
)
from shift_jax.errors import InputError
from tests.data.photos import encoded
from tests.data.sources.assertions import assert_input_error

# LFW


@pytest.fixture(scope="module")
def lfw(tmp_path_factory):
    """Nine records of three people, prepared by TFDS's own builder; one is no image."""

    def examples(self, people):
        for i, name in enumerate(people):
            image = np.full((250, 250, 3), 20 * "ABC".index(name[0]) + i, np.uint8)
            data = b"no image" if i == 8 else encoded(image, "PNG")
            yield f"{name}/{i}", {"label": name, "image": io.BytesIO(data)}

    def splits(self, manager):
        people = ["Bea_B", "Ann_A", "Cyd_C"] * 2 + ["Cyd_C"] * 3
        return [tfds.core.SplitGenerator(name="train", gen_kwargs={"people": people})]

    folder = tmp_path_factory.mktemp("tfds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lfw_dataset_builder.Builder, "_split_generators", splits)
        patch.setattr(lfw_dataset_builder.Builder, "_generate_examples", examples)
        builder = lfw_dataset_builder.Builder(data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
    return str(folder)


def test_lfw_is_numbered_by_its_sorted_names(lfw):
    assert identity_names("lfw", lfw) == ["Ann_A", "Bea_B", "Cyd_C"]
    source = load_identities("lfw", lfw, 32)
    assert isinstance(source, EncodedSource)
    assert source.class_names == ("Ann_A", "Bea_B", "Cyd_C") and source.num_classes == 3
    assert np.bincount(source.labels).tolist() == [2, 2, 5] and source.labels.dtype == np.int32
    records = [source.records[i]["image"] for i in range(9)]
    damaged = records.index(b"no image")
    with pytest.raises(
        UnreadableImageError, match=f"^Record {damaged} of lfw train cannot be read"
    ):
        source[damaged]
    values = []
    for i in set(range(9)) - {damaged}:
        example = source[i]
        assert example["image"].shape == source.image_shape == (32, 32, 3)
        assert example["label"] == source.labels[i] == source.encoded(i)["label"]
        values.append(int(example["image"].max()))
        assert values[-1] // 20 == example["label"]
    assert sorted(value % 20 for value in values) == list(range(8))


def test_lfw_of_some_names_and_slices(lfw):
    source = load_identities("lfw", lfw, 32, names=["Bea_B", "Ann_A"])
    assert len(source) == 4 and source.class_names == ("Ann_A", "Bea_B")
    whole = load_identities("lfw", lfw, 32)
    assert [source[i]["image"].max() // 20 for i in range(4)] == source.labels.tolist()
    for i in range(4):
        record = int(re.search(r"\d+", source.describe(i))[0])
        np.testing.assert_array_equal(source[i]["image"], whole[record]["image"])
    assert len(load_identities("lfw", lfw, 32, split="train[:6]")) == 6


def test_lfw_trains_balanced(lfw):
    source = load_identities("lfw", lfw, 32)
    batches = train_batches(
        source,
        random_resized_crop(32),
        batch_size=9,
        seed=0,
        sampling="balanced",
        max_unreadable_fraction=0.2,
    )
    for batch in itertools.islice(batches, 3):
        np.testing.assert_array_equal(batch["image"].max((1, 2, 3)) // 20, batch["label"])
    batches.close()


def test_lfw_is_refused_with_the_sentences_of_tfds(lfw, tmp_path):
    assert_input_error(
        "TFDS's lfw train has no identity 'Ann_B', expected one of its 3, such as 'Ann_A'. Did you "
        "mean 'Ann_A'?",
        load_identities,
        "lfw",
        lfw,
        32,
        names=["Ann_B"],
    )
    with pytest.raises(InputError, match="^lfw has no split 'test'; it has: train, and slices"):
        load_identities("lfw", lfw, 32, split="test")
    with pytest.raises(InputError, match="^lfw is not prepared in .*; prepare it"):
        identity_names("lfw", str(tmp_path))
    # Its labels are no classes: accuracy on unseen people would mean nothing.
    with pytest.raises(InputError, match="^lfw is not an image classification dataset"):
        load_source("lfw", "train", data_dir=lfw, image_size=32)
