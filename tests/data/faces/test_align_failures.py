"""What ends the alignment of a folder, and what does not."""

import errno
import os

import numpy as np
import pytest
from PIL import Image

from shift_jax.data.faces import align_faces
from shift_jax.data.faces.align_faces import align_folder
from shift_jax.errors import InputError
from tests.data.faces.detectors import (
    Detector,
    fill,
    pixels_of,
    report_of,
    write_photos,
)


@pytest.fixture
def source(tmp_path):
    return write_photos(tmp_path)


def test_a_file_in_place_of_a_folder_of_faces_is_told(source, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "Bob").touch()
    with pytest.raises(InputError, match=r"out cannot be created or written \(.*out/Bob.*\): ch"):
        align_folder(source, tmp_path / "out", 96, Detector())


@pytest.mark.parametrize("name", ["mkdir", "replace"])
@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_folder_without_permission_is_told(source, tmp_path, monkeypatch, name, code):
    # Root may write everywhere, hence the stand-in.
    with monkeypatch.context() as patch:
        patch.setattr(os, name, failing(OSError(code, "No way", str(tmp_path / "out"))))
        with pytest.raises(
            InputError, match=r"out cannot be created or written \(No way\): choose another"
        ):
            align_folder(source, tmp_path / "out", 96, Detector())


def failing(error):
    def fail(*arguments, **options):
        raise error

    return fail


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("where", ["start", "later"])
def test_a_full_or_broken_disk_stops_the_run(source, tmp_path, monkeypatch, code, where):
    broken = failing(OSError(code, "The disk"))
    if where == "start":
        monkeypatch.setattr(os, "replace", broken)
    else:
        monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(OSError, match="The disk"):
        align_folder(source, tmp_path / "out", 96, Detector())


class Failing(Detector):
    """Fails with green photos."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def detect(self, image):
        if image[..., 1].min() > 200:
            raise self.error
        return super().detect(image)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError("26 GiB\n  of pixels"), "MemoryError: 26 GiB of pixels"),
        (ZeroDivisionError("x" * 999), "ZeroDivisionError: " + "x" * 181),
        (InputError("No such points"), "InputError: No such points"),
    ],
)
def test_a_photo_at_which_the_detector_fails_does_not_end_the_run(tmp_path, error, reason):
    fill(tmp_path / "in", ["a.png", "c.png"])
    fill(tmp_path / "in", ["b.png"], np.full((300, 400, 3), (20, 210, 0), np.uint8))
    align_folder(tmp_path / "in", tmp_path / "out", 96, Failing(error))
    report = report_of(tmp_path / "out")
    assert [report[name]["status"] for name in ("a.png", "b.png", "c.png")] == [
        "aligned",
        "unreadable",
        "aligned",
    ]
    assert report["b.png"]["reason"] == reason
    # The next run tries it again.
    align_folder(tmp_path / "in", tmp_path / "out", 96, Detector())
    assert report_of(tmp_path / "out")["b.png"]["status"] == "aligned"


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), ImportError("No TensorFlow")]
)
def test_what_fails_with_every_photo_ends_the_run(tmp_path, error):
    fill(tmp_path / "in", ["b.png"], np.full((300, 400, 3), (20, 210, 0), np.uint8))
    with pytest.raises(type(error)):
        align_folder(tmp_path / "in", tmp_path / "out", 96, Failing(error))


def test_a_photo_too_large_to_read_does_not_end_the_run(tmp_path, monkeypatch):
    fill(tmp_path / "in", ["a.png"])
    monkeypatch.setattr(align_faces, "read_upright", failing(MemoryError()))
    [row] = align_folder(tmp_path / "in", tmp_path / "out", 96, Detector())
    assert (row.status, row.reason) == ("unreadable", "MemoryError:")


def test_the_center_of_a_very_long_photo_is_cut_out_first(tmp_path, monkeypatch):
    stripe = np.zeros((2, 30_000, 3), np.uint8)
    stripe[:, 14_999:15_001] = 30
    fill(tmp_path / "in", ["long.png"], stripe)
    sizes = []
    resize = Image.Image.resize

    def spy(image, size, *arguments, **options):
        sizes.append(size)
        return resize(image, size, *arguments, **options)

    monkeypatch.setattr(Image.Image, "resize", spy)
    align_folder(tmp_path / "in", tmp_path / "out", 160, Detector(), crop_without_face=True)
    assert np.abs(pixels_of(tmp_path / "out" / "long.jpg") - 30).max() < 3
    assert sizes == [(160, 160)]
