"""Files in a given order, and parts of a source."""

import os
import pickle
import re

import numpy as np
import pytest

from shift_jax.data import ImageFiles, Subset, UnreadableImageError, eval_batches, load_source
from shift_jax.errors import InputError
from tests.data.photos import encoded, photos


@pytest.fixture
def paths(tmp_path):
    """A file with the second photo, one with the first, a damaged, a missing, and a folder."""
    for name, photo in (("a.jpg", 1), ("b.png", 0)):
        data = encoded(photos()[photo], "PNG" if name.endswith("png") else "JPEG")
        (tmp_path / name).write_bytes(data)
    (tmp_path / "c.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:2000])
    (tmp_path / "folder.jpg").mkdir()
    return tuple(
        str(tmp_path / name) for name in ("b.png", "a.jpg", "c.jpg", "d.jpg", "folder.jpg")
    )


def test_files_are_read_in_the_order_given(paths):
    source = ImageFiles((paths[1], paths[0], paths[1]), 32)
    assert len(source) == 3 and source.image_shape == (32, 32, 3)
    assert source.num_classes == 1 and source.class_names is None
    images = [source[i]["image"] for i in range(3)]
    np.testing.assert_array_equal(images[0], images[2])
    for image, photo in zip(images, (1, 0), strict=False):
        center = photos()[photo][:, 107:534].mean((0, 1))
        np.testing.assert_allclose(image.mean((0, 1)), center, atol=2)
    assert source[0]["label"] == 0 and source[0]["label"].dtype == np.int32
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(source))[1]["image"], images[1])


def test_unreadable_files_are_named_and_masked_in_evaluation(paths):
    source = ImageFiles(paths, 32)
    reasons = ["image file is truncated", "No such file or directory", "Is a directory"]
    for i, reason in enumerate(reasons, start=2):
        name = re.escape(paths[i])
        with pytest.raises(
            UnreadableImageError, match=rf"^{name} cannot be read as an .* \({reason}"
        ):
            source[i]
    batches = list(eval_batches(source, batch_size=2, max_unreadable_fraction=0.6))
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert mask.tolist() == [True, True, False, False, False, False]
    with pytest.raises(InputError, match="^1 of 5 examples"):
        list(eval_batches(source, batch_size=2, max_unreadable_fraction=0.1))


def test_errors_of_the_system_are_not_the_images(paths, monkeypatch):
    def refuse(*args):
        raise OSError(24, "Too many open files")

    source = ImageFiles(paths, 32)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(OSError, match="Too many open files"):
        source[0]


def test_an_impossible_size_is_refused(paths):
    with pytest.raises(InputError, match=r"^image_size is 0; it must be"):
        ImageFiles(paths, 0)


def test_a_subset_is_the_source_in_another_order():
    source = load_source("digits", "test")
    positions = np.array([7, 3, 3, 359])
    subset = Subset(source, positions)
    assert len(subset) == 4 and subset.image_shape == source.image_shape
    assert subset.num_classes == 10 and subset.class_names == source.class_names
    np.testing.assert_array_equal(subset.labels, source.labels[positions])
    (batch,) = eval_batches(subset, batch_size=4)
    np.testing.assert_array_equal(batch["image"], source.images[positions])
    np.testing.assert_array_equal(batch["label"], source.labels[positions])


@pytest.mark.parametrize("positions", [[0, 360], [-1, 5]])
def test_a_subset_of_what_is_not_there_is_refused(positions):
    sentence = (
        f"The positions of a subset range from {positions[0]} to {positions[1]}, expected "
        "positions in the source, 0..359."
    )
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        Subset(load_source("digits", "test"), np.array(positions))
