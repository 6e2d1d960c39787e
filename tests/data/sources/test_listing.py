"""Names of files and folders: what is skipped, how they are compared, and where links lead."""

import os
import unicodedata

import pytest

from shift_jax.data.sources.listing import (
    IMAGE_EXTENSIONS,
    file_names,
    image_names,
    is_litter,
    sorted_names,
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
    return sorted(image_names(root, nested=True))


def test_extensions_are_in_lower_case_with_their_dot():
    assert {".jpg", ".gif", ".jfif"} < IMAGE_EXTENSIONS
    assert all(each == each.lower() and each.startswith(".") for each in IMAGE_EXTENSIONS)


def test_litter_is_told_by_its_name_in_any_case():
    for name in ("__MACOSX", "@eaDir", "$Recycle.bin", "THUMBS.DB", ".git", "._1.jpg", "Icon\r"):
        assert is_litter(name)
    for name in ("macosx", "eaDir", "recycle", "Thumbs.jpg", "a.git", "lost", "cat"):
        assert not is_litter(name)


def test_folders_are_no_files(tmp_path):
    fill(tmp_path, "1.txt", "folder.jpg/2.jpg", "folder.jpg/@eaDir/2.jpg/THUMB.jpg", "a/Thumbs.db")
    link(tmp_path / "linked.jpg", tmp_path / "1.txt")
    assert sorted(file_names(tmp_path)) == ["1.txt", "linked.jpg"]
    assert sorted(file_names(tmp_path, nested=True)) == ["1.txt", "folder.jpg/2.jpg", "linked.jpg"]


def test_the_order_of_names_does_not_depend_on_their_normal_form():
    names = ["chêf.jpg", "chên.jpg", "chez.jpg", "cher.jpg"]
    orders = {
        tuple(
            unicodedata.normalize("NFC", os.fsdecode(each))
            for each in sorted_names(unicodedata.normalize(form, name) for name in names)
        )
        for form in ("NFC", "NFD")
    }
    assert len(orders) == 1


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
    assert list(subfolders(tmp_path / "in")) == ["a", "up"]


@pytest.mark.parametrize("length", [45])
def test_chains_of_links_longer_than_the_system_follows_end(tmp_path, length):
    for i in range(length):
        fill(tmp_path, f"p{i}/{i}.jpg")
        link(tmp_path / f"p{i}" / "l", tmp_path / f"p{(i + 1) % length}")
    assert len(listed(tmp_path)) == length
    assert "0.jpg" in listed(tmp_path / "p0") and "l/l/2.jpg" in listed(tmp_path / "p0")
