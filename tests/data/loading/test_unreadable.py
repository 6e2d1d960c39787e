"""What happens to images that cannot be read, from the folder to the batch."""

import itertools
import pickle
import re

import numpy as np
import pytest
from absl import logging

from shift_jax.data import (
    UnreadableImageError,
    eval_batches,
    load_source,
    pad_crop_flip,
    train_batches,
)
from shift_jax.data import random_resized_crop as crop
from shift_jax.errors import InputError
from tests.data.photos import write_folder

KEEP = pad_crop_flip(0, False)
BROKEN = {"class0/1.jpg": b"", "class0/2.jpg": b"no image", "class1/3.jpg": None}


@pytest.fixture
def root(tmp_path):
    """Eight photos, of which those at 1, 2 and 7 are empty, no image, and cut off."""
    write_folder(tmp_path)
    for name, data in BROKEN.items():
        path = tmp_path / "train" / name
        path.write_bytes(path.read_bytes()[:-500] if data is None else data)
    return tmp_path


@pytest.fixture
def source(root):
    return load_source("folder", "train", data_dir=str(root), image_size=16)


@pytest.fixture
def warnings(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    return said


def train(source, count, transform=KEEP, fraction=0.5, **kwargs):
    kwargs = {"batch_size": 4, "seed": 0} | kwargs
    batches = train_batches(source, transform, max_unreadable_fraction=fraction, **kwargs)
    got = list(itertools.islice(batches, count))
    batches.close()
    return got


def assert_same(batches, others):
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])


@pytest.mark.parametrize("transform", [KEEP, crop(16)], ids=["pad_crop_flip", "inception"])
def test_training_takes_the_next_readable_example(source, transform, warnings):
    batches = train(source, 4, transform)
    readable = {0: 0, 1: 3, 2: 3, 3: 3, 4: 4, 5: 5, 6: 6, 7: 0}
    per_epoch = np.bincount(list(readable.values()), minlength=8)
    for epoch in (batches[:2], batches[2:]):
        assert all(set(batch) == {"image", "label"} for batch in epoch)
        labels = np.concatenate([batch["label"] for batch in epoch])
        # Two examples of class 0 stand in for their neighbors, one for the last of class 1.
        assert np.bincount(labels).tolist() == [per_epoch[:4].sum(), per_epoch[4:].sum()]
        assert (np.concatenate([batch["image"] for batch in epoch]).std((1, 2, 3)) > 0).all()


def test_each_is_warned_of_once_with_its_name_and_the_count(source, warnings):
    train(source, 6)
    assert len(warnings) == 3
    for number, said in enumerate(warnings, 1):
        assert said.endswith(f" and is skipped; {number} unreadable so far.")
    said = "\n".join(warnings)
    assert re.search(r"train/class0/1\.jpg cannot be read as an image \(it is empty\)", said)
    assert re.search(r"class0/2\.jpg cannot be read as an image \(cannot identify image", said)
    assert re.search(r"class1/3\.jpg cannot be read as an image \(image file is truncated", said)


def test_a_batch_is_still_a_function_of_seed_and_step(source):
    whole = train(source, 5, crop(16))
    assert_same(train(source, 3, crop(16), start_step=2), whole[2:])
    halves = [train(source, 5, crop(16), process_index=p, process_count=2) for p in (0, 1)]
    for batch, *parts in zip(whole, *halves, strict=True):
        for key in batch:
            np.testing.assert_array_equal(np.concatenate([p[key] for p in parts]), batch[key])


def test_workers_change_nothing_and_report(source, warnings):
    whole = train(source, 4, crop(16))
    said, warnings[:] = list(warnings), []
    assert_same(train(source, 4, crop(16), num_workers=2), whole)
    assert warnings == said


def test_evaluation_masks_them(source, warnings):
    batches = list(eval_batches(source, batch_size=3, max_unreadable_fraction=0.5))
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert mask.tolist() == [True, False, False, True, True, True, True, False, False]
    images = np.concatenate([batch["image"] for batch in batches])
    np.testing.assert_array_equal(images.any((1, 2, 3)), mask)
    assert all(set(batch) == {"image", "label", "mask"} for batch in batches)
    assert len(warnings) == 3


SENTENCE = (
    r"2 of 8 examples \(25\.00%\) cannot be read as images, more than "
    r"max_unreadable_fraction=0\.2 allows; the first is .*/class0/1\.jpg \(it is empty\): replace "
    r"or remove them, or raise the fraction\."
)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_too_many_end_the_run_with_one_sentence(source, num_workers):
    kwargs = {"fraction": 0.2, "batch_size": 8, "num_workers": num_workers}
    with pytest.raises(InputError) as caught:
        train(source, 1, **kwargs)
    first = r"\d of 8 examples .*=0\.2 allows; the first is .*/class\d/\d\.jpg \(.*\): replace .*"
    assert re.fullmatch(first, str(caught.value))
    batches = eval_batches(
        source, batch_size=8, max_unreadable_fraction=0.2, num_workers=num_workers
    )
    with pytest.raises(InputError, match=f"^{SENTENCE}$"):
        next(batches)


def test_as_many_as_allowed_do_not(source):
    assert len(train(source, 4, fraction=3 / 8)) == 4


def test_a_source_without_a_readable_image_ends(root):
    for path in root.glob("train/*/*.jpg"):
        path.write_bytes(b"")
    source = load_source("folder", "train", data_dir=str(root), image_size=16)
    with pytest.raises(InputError, match="^8 of 8 examples"):
        train(source, 1, fraction=1.0)


def test_a_vanished_file_is_unreadable(root, source, warnings):
    (root / "train/class1/0.jpg").unlink()
    train(source, 2)
    assert any("class1/0.jpg cannot be read as an image (No such file" in w for w in warnings)


@pytest.mark.parametrize("fraction", [-0.1, 1.1, True, "0"])
def test_a_fraction_that_is_none_is_refused(source, fraction):
    sentence = (
        f"max_unreadable_fraction is {fraction!r}; it must be a fraction of the examples, 0..1."
    )
    for batches in (
        lambda: train(source, 1, fraction=fraction),
        lambda: eval_batches(source, batch_size=4, max_unreadable_fraction=fraction),
    ):
        with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
            batches()


def test_the_error_survives_pickling(source):
    with pytest.raises(UnreadableImageError) as caught:
        source[1]
    copy = pickle.loads(pickle.dumps(caught.value))
    assert str(copy) == str(caught.value) and copy.reason == "it is empty"
