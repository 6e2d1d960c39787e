"""Names of the images in folders that links lead round in."""

import os

import pytest

from shift_jax.data.sources.folder import (
    IMAGE_EXTENSIONS,
    PHOTO_EXTENSIONS,
    image_names,
    subfolders,
)


def fill(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def link(path, target):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def listed(root):
    return sorted(image_names(root, IMAGE_EXTENSIONS, nested=True))


def test_photos_are_images_and_more():
    assert IMAGE_EXTENSIONS < PHOTO_EXTENSIONS and ".gif" in PHOTO_EXTENSIONS
    assert all(each == each.lower() and each.startswith(".") for each in PHOTO_EXTENSIONS)


def test_siblings_that_link_to_each_other_are_listed_once(tmp_path):
    fill(tmp_path, "p0/0.jpg", "p1/1.jpg", "p2/deep/2.jpg")
    link(tmp_path / "p0" / "l", tmp_path / "p1")
    link(tmp_path / "p1" / "l", "../p0")
    assert listed(tmp_path) == ["p0/0.jpg", "p1/1.jpg", "p2/deep/2.jpg"]


def test_many_siblings_that_link_to_all_others_are_listed_once(tmp_path):
    names = [f"p{i}" for i in range(12)]
    fill(tmp_path, *(f"{name}/1.jpg" for name in names))
    for name in names:
        for other in names:
            link(tmp_path / name / f"to_{other}", tmp_path / other)
    assert listed(tmp_path) == sorted(f"{name}/1.jpg" for name in names)
    # One of them alone leads to the others, too.
    assert len(listed(tmp_path / "p3")) == 12


def test_folders_have_their_own_names_and_others_that_of_the_first_link(tmp_path, monkeypatch):
    fill(tmp_path, "in/z/1.jpg", "elsewhere/2.jpg", "elsewhere/below/3.jpg")
    link(tmp_path / "in" / "a", tmp_path / "in" / "z")
    for name in ("c", "b", "d/d", "e"):
        link(tmp_path / "in" / name, tmp_path / "elsewhere")
    link(tmp_path / "in" / "a_first", tmp_path / "elsewhere" / "below")
    expected = ["a_first/3.jpg", "b/2.jpg", "z/1.jpg"]
    assert listed(tmp_path / "in") == expected
    scandir = os.scandir

    class Reversed(list):
        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", lambda path: Reversed(list(scandir(path))[::-1]))
        assert listed(tmp_path / "in") == expected


def test_links_that_lead_up_or_nowhere_are_not_followed(tmp_path):
    fill(tmp_path, "in/a/1.jpg", "beside.jpg")
    link(tmp_path / "in" / "up", tmp_path)
    link(tmp_path / "in" / "a" / "here", ".")
    link(tmp_path / "in" / "circle", "circle")
    link(tmp_path / "in" / "gone", tmp_path / "none")
    assert listed(tmp_path / "in") == ["a/1.jpg"]
    assert subfolders(tmp_path / "in") == ["a", "up"]


@pytest.mark.parametrize("length", [45])
def test_chains_of_links_longer_than_the_system_follows_end(tmp_path, length):
    for i in range(length):
        fill(tmp_path, f"p{i}/{i}.jpg")
        link(tmp_path / f"p{i}" / "l", tmp_path / f"p{(i + 1) % length}")
    assert len(listed(tmp_path)) == length
    assert "0.jpg" in listed(tmp_path / "p0") and "l/l/2.jpg" in listed(tmp_path / "p0")
