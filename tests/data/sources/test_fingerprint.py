"""Sources say which examples they have, by names, numbers and a digest of files."""

import shutil
import unicodedata

import numpy as np
import pytest
import tensorflow_datasets as tfds

from shift_jax.data import (
    Subset,
    fingerprint,
    load_identities,
    load_photos,
    load_source,
)
from tests.data.photos import write_folder

OPENED = {
    "folder": lambda root: load_source("folder", "train", data_dir=str(root), image_size=8),
    "identities": lambda root: load_identities("identities", str(root / "train"), 8),
    "photos": lambda root: load_photos(
        "photos", "train", data_dir=str(root), image_size=8, held_out=2
    ),
}


@pytest.fixture
def root(tmp_path):
    (tmp_path / "data").mkdir()
    root = write_folder(tmp_path / "data", per_class=3)
    zoe = unicodedata.normalize("NFC", "Zoë")
    (root / "train/class0").rename(root / "train" / zoe)
    (root / "train/class1/0.jpg").rename(root / "train/class1" / f"{zoe}.jpg")
    return root


@pytest.fixture(params=OPENED)
def opened(request):
    return OPENED[request.param]


def test_names_and_numbers_are_told(root):
    found = fingerprint(OPENED["folder"](root))
    assert found.class_names == ("Zoë", "class1") and found.num_examples == 6
    assert len(found.files) == 64
    assert OPENED["identities"](root).files_digest() == found.files
    photos = fingerprint(OPENED["photos"](root))
    assert photos.class_names is None and photos.num_examples == 4 and len(photos.files) == 64


def test_a_folder_that_was_moved_or_copied_is_the_same(root, opened, tmp_path, monkeypatch):
    before = fingerprint(opened(root))
    shutil.copytree(root, tmp_path / "deep/er/copy")
    assert fingerprint(opened(tmp_path / "deep/er/copy")) == before
    (tmp_path / "link").symlink_to(root)
    assert fingerprint(opened(tmp_path / "link")) == before
    monkeypatch.chdir(tmp_path)
    assert fingerprint(opened(root.relative_to(tmp_path))) == before
    # A Mac may have stored its names in another normal form.
    for path in sorted(root.rglob("*Zo*"), reverse=True):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    assert fingerprint(opened(root)) == before


def test_names_sizes_and_missing_files_change_the_digest(root, opened):
    path = root / "train/class1/1.jpg"
    digests = {fingerprint(opened(root)).files}
    path.write_bytes(path.read_bytes() + b"0")
    digests.add(fingerprint(opened(root)).files)
    path = path.rename(path.with_name("5.jpg"))
    digests.add(fingerprint(opened(root)).files)
    path.unlink()
    path.symlink_to("nowhere")
    digests.add(fingerprint(opened(root)).files)
    path.unlink()
    digests.add(fingerprint(opened(root)).files)
    assert len(digests) == 5


def test_a_subset_counts_its_own_examples_of_the_same_files(root):
    source = OPENED["folder"](root)
    expected = fingerprint(source)._replace(num_examples=2)
    assert fingerprint(Subset(source, np.array([1, 4]))) == expected


def test_sources_without_files_have_no_digest():
    assert fingerprint(load_source("digits", "test")) == (tuple("0123456789"), 360, None)
    assert fingerprint(load_source("synthetic", "train[:5]")) == (None, 5, None)
    with tfds.testing.mock_data(num_examples=3):
        found = fingerprint(load_source("cifar10", "test"))
    assert len(found.class_names) == 10 and found[1:] == (3, None)
