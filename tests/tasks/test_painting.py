"""Painting, by networks that cost nothing, as the command does it."""

import errno
import os
import re

import numpy as np
import pytest

from shift_jax.data.decode import photo_files
from shift_jax.errors import InputError, StorageError
from shift_jax.training import inference
from tests.commands.call import call as call_command
from tests.data.photos import pixels_of, write_photo


def call(*arguments):
    call_command("stylize", [str(each) for each in arguments])


@pytest.fixture
def photo(tmp_path):
    return write_photo(tmp_path / "photo.png")


class Negative:
    """Paints like a network that has learned to swap light and dark."""

    layers = 1
    calls = 0

    def takes_whole(self, height, width):
        return True

    def __call__(self, pixels, progress=None):
        Negative.calls += 1
        return 255 - pixels


@pytest.fixture
def quick_styles(monkeypatch):
    """Lets every name be a style that costs nothing."""
    monkeypatch.setattr(inference, "load_style", lambda *_: Negative())
    monkeypatch.setattr(Negative, "calls", 0)


def test_the_speed_is_told_of_photos_that_take_time(quick_styles, tmp_path, capsys):
    large = write_photo(tmp_path / "large.png", (250, 400))
    call(large, "--style=a", f"--output={tmp_path / 'out.png'}")
    printed = capsys.readouterr().out
    assert re.search(r"400×250 pixels in \d+\.\d s, \d+\.\d\d s per megapixel", printed), printed
    np.testing.assert_array_equal(pixels_of(tmp_path / "out.png"), 255 - pixels_of(large))


def test_names_of_any_length(quick_styles, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    longest, too_long = f"{'ö' * 125}o.png", f"{'o' * 252}.png"
    call(photo, "--style=a", f"--output={longest}")
    assert pixels_of(tmp_path / longest).shape == (5, 5, 3)
    for arguments, sentence in [
        (
            (photo, f"--output={too_long}"),
            "cannot exist .File name too long.: choose another --output",
        ),
        ((too_long, "--output=o.png"), "cannot exist .File name too long.: choose another photo"),
        (
            (tmp_path, f"--output=../{too_long}"),
            "cannot exist .File name too long.: choose another --ou",
        ),
        ((photo, f"--output={photo}/o.png"), "photo.png/o.png cannot exist .Not a dir"),
        (
            (tmp_path, f"--output=../{too_long}/painted"),
            "cannot exist .File name too long.: choose another --ou",
        ),
    ]:
        with pytest.raises(InputError, match=sentence):
            call("--style=a", *arguments)
    with pytest.raises(
        InputError, match="cannot exist .File name too long.: choose another --model"
    ):
        call(photo, f"--model={too_long}", "--output=o.png")
    assert Negative.calls == 1


def test_files_where_folders_are_to_be_written(quick_styles, tmp_path, capsys):
    frames, output = tmp_path / "frames", tmp_path / "painted"
    write_photo(frames / "deep" / "a.jpg" / "b.png")
    write_photo(frames / "c.png")
    output.mkdir()
    (output / "mosaic").touch()
    with pytest.raises(InputError, match=r"painted/mosaic is a file, expected a folder to write"):
        call(frames, "--style=wave,mosaic", f"--output={output}")
    assert Negative.calls == 0
    (output / "deep").mkdir()
    (output / "deep" / "a.jpg").touch()
    with pytest.raises(InputError, match="1 of the 2 photos"):
        call(frames, "--style=wave", f"--output={output}")
    captured = capsys.readouterr()
    assert re.search(r"left out: .*a.jpg/b.png cannot be written \(", captured.err)
    assert (output / "c.png").is_file() and "1 photos, " in captured.out


def test_photos_of_kinds_that_are_not_read_are_told_of(quick_styles, tmp_path, capsys):
    frames = tmp_path / "frames"
    write_photo(frames / "a.png")
    for name in ("b.HEIC", "deep/c.heic", "d.nef", "notes.txt", ".e.heic"):
        (frames / name).parent.mkdir(exist_ok=True)
        (frames / name).touch()
    with pytest.raises(InputError, match="3 of the 4 photos in .* were left out"):
        call(frames, "--style=a", f"--output={tmp_path / 'painted'}")
    captured = capsys.readouterr()
    assert "left out: 3 photos of kinds that are not read (.heic, .nef): convert" in captured.err
    assert "1 photos, 0.0 megapixels" in captured.out


def test_a_disk_that_is_full_keeps_back_nothing(quick_styles, tmp_path, monkeypatch, capsys):
    frames = tmp_path / "frames"
    for name in ("a.png", "b.png", "d.png"):
        write_photo(frames / name)
    (frames / "a.jpg").write_bytes(b"no photo")
    replace = os.replace

    def full(old, new):
        if new.name == "b.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(old, new)

    monkeypatch.setattr(photo_files.os, "replace", full)
    sentence = r"painted/b.png cannot be written \(No space left on device\): make room"
    with pytest.raises(StorageError, match=sentence):
        call(frames, "--style=a", f"--output={tmp_path / 'painted'}")
    captured = capsys.readouterr()
    assert "a.jpg cannot be read as an image" in captured.err
    assert "1 photos, 0.0 megapixels" in captured.out
    assert [path.name for path in (tmp_path / "painted").iterdir()] == ["a.png"]


def test_a_network_that_failed_stops_a_folder_at_once(quick_styles, tmp_path, monkeypatch, capsys):
    for name in ("a.png", "b.png"):
        write_photo(tmp_path / "frames" / name)

    def fail(*_):
        raise InputError("The network makes colours that are not finite.")

    monkeypatch.setattr(Negative, "__call__", fail)
    with pytest.raises(InputError, match="^wave: The network makes colours that are not finite"):
        call(tmp_path / "frames", "--style=wave", f"--output={tmp_path / 'painted'}")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_contact_sheet_too_large_for_its_format_is_refused_first(
    quick_styles, photo, tmp_path, monkeypatch
):
    monkeypatch.setitem(photo_files._LONGEST, "WEBP", 100)
    with pytest.raises(InputError, match="would be .* pixels long, but WEBP allows at most 100"):
        call(photo, "--style=a,a_second,a_third", f"--output={tmp_path / 'o.webp'}")
    assert Negative.calls == 0
