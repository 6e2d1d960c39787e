"""The command that aligns a folder of photos: what it writes, tells, refuses and leaves alone."""

import os

import numpy as np
import pytest
from absl import logging
from PIL import Image

from shift_jax.data.faces import align_faces
from shift_jax.data.faces.align_faces import align_folder
from shift_jax.data.faces.align_report import FILE_NAME
from shift_jax.data.faces.alignment import align
from shift_jax.errors import InputError
from tests.data.faces.detectors import (
    DARK,
    LANDMARKS,
    PHOTO,
    Detector,
    files_in,
    fill,
    pixels_of,
    report_of,
    write_photos,
)
from tests.data.photos import encoded


@pytest.fixture
def source(tmp_path):
    return write_photos(tmp_path)


def test_folders_are_mirrored_and_faces_aligned(source, tmp_path):
    rows = align_folder(source, tmp_path / "new" / "out", 96, Detector())
    target = tmp_path / "new" / "out"
    assert files_in(target) == ["Ann/Ann_0001.jpg", "Bob/video 1/0.12.jpg", "flat.jpg"]
    assert [row.status for row in rows] == ["aligned"] * 3
    with Image.open(target / "flat.jpg") as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (96, 96), "RGB")
        expected = align(PHOTO, LANDMARKS, 96)
        assert np.abs(np.asarray(image).astype(int) - expected).mean() < 2


def test_litter_is_not_aligned_and_other_files_are_told(source, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    fill(source, ["Ann/@eaDir/Ann_0001.jpg/THUMB.jpg", "__MACOSX/flat.png", "#recycle/1.jpg"])
    (source / "Bob/1.heic").write_bytes(b"")
    (source / "Bob/desktop.ini").write_bytes(b"")
    align_folder(source, tmp_path / "out", 96, Detector())
    assert len(files_in(tmp_path / "out")) == 3
    assert said == [f"{source}: ignoring 1 file without an image extension, such as Bob/1.heic."]


def test_the_report_tells_of_each_photo(source, tmp_path):
    fill(source, ["green.png"], np.full((300, 400, 3), (20, 210, 0), np.uint8))
    fill(source, ["dark.png"], DARK)
    (source / "broken.jpg").write_bytes(encoded(PHOTO)[:3000])
    align_folder(source, tmp_path / "out", 160, Detector())
    report = report_of(tmp_path / "out")
    assert {path: row["status"] for path, row in report.items()} == {
        "Ann/Ann_0001.jpg": "aligned",
        "Bob/video 1/0.12.png": "aligned",
        "flat.PNG": "aligned",
        "green.png": "aligned",
        "dark.png": "no_face",
        "broken.jpg": "unreadable",
    }
    assert report["green.png"]["faces"] == "2"
    assert report["green.png"]["confidence"] == "0.9900"
    assert report["green.png"]["output"] == "green.jpg"
    eyes = np.linalg.norm(LANDMARKS[1] - LANDMARKS[0])
    assert float(report["green.png"]["eye_distance"]) == pytest.approx(eyes, abs=0.05)
    assert report["dark.png"]["faces"] == "0"
    assert report["broken.jpg"]["reason"]
    assert not (tmp_path / "out" / "dark.jpg").exists()


def test_the_chosen_face_is_the_one_asked_for(tmp_path):
    green = np.full((50, 50, 3), (20, 210, 0), np.uint8)
    fill(tmp_path / "in", ["green.png"], green)
    align_folder(tmp_path / "in", tmp_path / "out", 64, Detector(), face="most_central")
    assert report_of(tmp_path / "out")["green.png"]["confidence"] == "0.9990"


def test_without_a_face_the_center_may_be_taken(tmp_path):
    dark = DARK.copy()
    dark[:, 10:90] = 30
    fill(tmp_path / "in", ["dark.png"], dark)
    align_folder(tmp_path / "in", tmp_path / "out", 80, Detector(), crop_without_face=True)
    assert report_of(tmp_path / "out")["dark.png"]["status"] == "cropped"
    assert np.abs(pixels_of(tmp_path / "out" / "dark.jpg") - 30).max() < 3


def test_a_second_run_does_nothing_again(source, tmp_path):
    fill(source, ["dark.png"], DARK)
    target = tmp_path / "out"
    align_folder(source, target, 96, Detector())
    before = {name: (target / name).stat().st_mtime_ns for name in files_in(target)}
    again = Detector()
    rows = align_folder(source, target, 96, again)
    assert again.seen == 0
    assert {name: (target / name).stat().st_mtime_ns for name in files_in(target)} == before
    assert sorted(row.status for row in rows) == ["aligned"] * 3 + ["no_face"]
    # New photos and aligned faces that were removed are another matter.
    fill(source, ["new.jpg"])
    (target / "flat.jpg").unlink()
    align_folder(source, target, 96, again)
    assert again.seen == 2
    assert files_in(target) == ["Ann/Ann_0001.jpg", "Bob/video 1/0.12.jpg", "flat.jpg", "new.jpg"]


def test_photos_without_a_face_are_tried_again_for_another_outcome(tmp_path):
    fill(tmp_path / "in", ["faint.png"], np.full((90, 90, 3), 50, np.uint8))
    fill(tmp_path / "in", ["dark.png"], DARK)

    def statuses(detector, **options):
        rows = align_folder(tmp_path / "in", tmp_path / "out", 96, detector, **options)
        return {row.path: row.status for row in rows}

    assert statuses(Detector(0.9)) == {"faint.png": "no_face", "dark.png": "no_face"}
    assert statuses(Detector(0.5)) == {"faint.png": "aligned", "dark.png": "no_face"}
    last = Detector(0.9)
    assert statuses(last, crop_without_face=True) == {"faint.png": "aligned", "dark.png": "cropped"}
    assert last.seen == 1
    assert len(report_of(tmp_path / "out")) == 2


@pytest.mark.parametrize("breaks_at", [1, 3, 5])
def test_a_run_that_was_stopped_goes_on(tmp_path, breaks_at):
    fill(tmp_path / "in", [f"{i}.jpg" for i in range(5)])
    with pytest.raises(KeyboardInterrupt):
        align_folder(tmp_path / "in", tmp_path / "out", 96, Detector(breaks_at=breaks_at))
    assert files_in(tmp_path / "out") == [f"{i}.jpg" for i in range(breaks_at - 1)]
    rest = Detector()
    align_folder(tmp_path / "in", tmp_path / "out", 96, rest)
    assert rest.seen == 5 - (breaks_at - 1)
    assert files_in(tmp_path / "out") == [f"{i}.jpg" for i in range(5)]


@pytest.mark.parametrize("where", ["save", "replace", "half a line"])
def test_killed_while_writing_leaves_no_half_face(tmp_path, monkeypatch, where):
    fill(tmp_path / "in", ["a.jpg", "b.jpg"])
    target = tmp_path / "out"
    with monkeypatch.context() as patch:
        if where == "save":
            complete = Image.Image.save

            def save(image, path, *arguments, **options):
                complete(image, path, *arguments, **options)
                if "b.jpg" in str(path):
                    os.truncate(path, 100)
                    raise KeyboardInterrupt

            patch.setattr(Image.Image, "save", save)
        elif where == "replace":
            complete = os.replace

            def replace(old, new):
                if str(new).endswith("b.jpg"):
                    raise KeyboardInterrupt
                complete(old, new)

            patch.setattr(align_faces.os, "replace", replace)
        else:
            patch.setattr(align_faces.Report, "append", append_half_of_b(target))
        with pytest.raises(KeyboardInterrupt):
            align_folder(tmp_path / "in", target, 96, Detector())
    assert not (target / "b.jpg").exists()
    assert pixels_of(target / "a.jpg").shape == (96, 96, 3)
    rest = Detector()
    align_folder(tmp_path / "in", target, 96, rest)
    assert rest.seen == 1
    assert files_in(target) == ["a.jpg", "b.jpg"]
    assert pixels_of(target / "b.jpg").shape == (96, 96, 3)
    assert list(report_of(target)) == ["a.jpg", "b.jpg"]


def append_half_of_b(target):
    complete = align_faces.Report.append

    def append(report, row):
        complete(report, row)
        if row.path == "b.jpg":
            os.truncate(target / FILE_NAME, os.path.getsize(target / FILE_NAME) - 9)
            raise KeyboardInterrupt

    return append


def test_a_report_may_end_in_half_a_line(tmp_path):
    fill(tmp_path / "in", ["dark.png"], DARK)
    align_folder(tmp_path / "in", tmp_path / "out", 96, Detector())
    whole = (tmp_path / "out" / FILE_NAME).read_bytes()
    for length in range(len(whole) - len(b"dark.png,no_face,,0,,,96,largest,0.9,") - 1, len(whole)):
        (tmp_path / "out" / FILE_NAME).write_bytes(whole[:length])
        align_folder(tmp_path / "in", tmp_path / "out", 96, Detector())
        assert (tmp_path / "out" / FILE_NAME).read_bytes() == whole


def test_every_kind_of_image_is_taken(tmp_path):
    source = tmp_path / "in"
    fill(source, ["alpha.png"], np.dstack([PHOTO, np.full((300, 400), 255, np.uint8)]))
    fill(source, ["gray.pgm"], PHOTO[..., 0])
    fill(source, ["gray16.png"], PHOTO[..., 0].astype(np.uint16) * 257)
    Image.fromarray(PHOTO).convert("CMYK").save(source / "cmyk.jpg", quality=95)
    frames = [Image.fromarray(frame) for frame in (PHOTO, DARK, DARK)]
    frames[0].save(source / "moving.gif", save_all=True, append_images=frames[1:])
    align_folder(source, tmp_path / "out", 96, Detector())
    expected = align(PHOTO, LANDMARKS, 96).astype(int)
    grays = np.repeat(align(PHOTO[..., :1].repeat(3, axis=-1), LANDMARKS, 96)[..., :1], 3, axis=-1)
    for name in ("alpha", "gray", "gray16", "cmyk", "moving"):
        found = pixels_of(tmp_path / "out" / f"{name}.jpg")
        reference = grays if "gray" in name else expected
        assert np.abs(found - reference).mean() < 6, name


def test_photos_of_one_stem_get_two_names(tmp_path):
    fill(tmp_path / "in", ["a.jpg", "a.png", "a.png.jpg", "b.png"])
    names = ["a.jpg", "a.png.jpg", "a.png.jpg.jpg", "b.jpg"]
    rows = align_folder(tmp_path / "in", tmp_path / "out", 32, Detector())
    assert files_in(tmp_path / "out") == names
    assert len({row.output for row in rows}) == 4
    # A newcomer does not take over the name of what is there.
    fill(tmp_path / "in", ["b.bmp"])
    again = Detector()
    align_folder(tmp_path / "in", tmp_path / "out", 32, again)
    assert again.seen == 1
    assert report_of(tmp_path / "out")["b.png"]["output"] == "b.jpg"
    assert report_of(tmp_path / "out")["b.bmp"]["output"] == "b.bmp.jpg"


def test_odd_names_are_reported_as_they_are(tmp_path):
    names = [b'a, "b"\nc.png', "é\u4e2d.png".encode(), b"latin\xe9.png"]
    os.makedirs(tmp_path / "in")
    for name in names:
        (tmp_path / "in" / os.fsdecode(name)).write_bytes(encoded(PHOTO, "PNG"))
    align_folder(tmp_path / "in", tmp_path / "out", 32, Detector())
    again = Detector()
    rows = align_folder(tmp_path / "in", tmp_path / "out", 32, again)
    assert again.seen == 0 and len(rows) == 3
    assert {os.fsencode(row.path) for row in rows} == set(names)


def test_names_may_be_as_long_as_the_system_takes(tmp_path):
    fill(tmp_path / "in", ["n" * 251 + ".png"])
    [row] = align_folder(tmp_path / "in", tmp_path / "out", 32, Detector())
    assert row.status == "aligned" and files_in(tmp_path / "out") == ["n" * 251 + ".jpg"]


def test_other_faces_and_other_peoples_files_are_left_alone(source, tmp_path):
    target = tmp_path / "out"
    align_folder(source, target, 96, Detector())
    with pytest.raises(InputError, match="aligned with --image_size=96 --face=largest: use the"):
        align_folder(source, target, 112, Detector())
    with pytest.raises(InputError, match="aligned with --image_size=96 --face=largest: use the"):
        align_folder(source, target, 96, Detector(), face="most_central")
    fill(tmp_path / "theirs", ["flat.jpg"])
    with pytest.raises(InputError, match="flat.jpg exists but is not in align_report.csv"):
        align_folder(source, tmp_path / "theirs", 96, Detector())
    (tmp_path / "theirs" / FILE_NAME).write_text("name,age\nAnn,3\n")
    with pytest.raises(InputError, match="align_report.csv is not a report of an alignment"):
        align_folder(source, tmp_path / "theirs", 96, Detector())
