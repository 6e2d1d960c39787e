"""The command that aligns a folder of photos."""

import subprocess
import sys

import numpy as np
import pytest

from shift_jax.data.faces import align_faces
from shift_jax.data.faces.align_report import FILE_NAME
from shift_jax.errors import InputError
from tests.commands.call import call
from tests.conftest import REPOSITORY
from tests.data.faces.detectors import (
    DARK,
    Detector,
    files_in,
    fill,
    pixels_of,
    write_photos,
)
from tests.data.photos import photos


@pytest.fixture
def source(tmp_path):
    return write_photos(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["in"], "Name a folder of photos and one for the aligned faces"),
        (["in", "out", "more"], "Name a folder of photos and one for the aligned faces"),
        (["none", "out"], "none is not a folder: name a folder of photos"),
        (["in/flat.PNG", "out"], "flat.PNG is not a folder: name a folder of photos"),
        (["in", "in"], "in, is the folder of the photos, in: choose another one"),
        (["in", "in/../in/"], "is the folder of the photos"),
        (["in", "in/out"], "in/out, lies in the folder of the photos, in: choose"),
        (["in", "link/out"], "lies in the folder of the photos"),
        (["in", "in/flat.PNG"], "in/flat.PNG is a file: name a folder"),
        (["in/Bob", "in"], "photos, in/Bob, lies in the folder for the aligned faces, in: choose"),
        (["link/Bob", "in"], "link/Bob, lies in the folder for the aligned faces, in: choose"),
        (["in/Bob", "."], "in/Bob, lies in the folder for the aligned faces, "),
        (
            ["in", "a file/out"],
            r"a file/out cannot exist \(Not a dir.*: choose anoth",
        ),
        (["in", "a file/a/out"], r"a/out cannot exist \(Not a directory\): choose"),
        (["in", "circle"], r"circle cannot be created or written \(File exists\)"),
        (["in", "n" * 300], r"nn cannot exist \(File name too long\)"),
        (["in", "report is a folder"], r"\(Is a directory: report is a folder/align_report.csv\)"),
        pytest.param(
            *(
                ["in", "/proc/faces"],
                r"^/proc/faces cannot be created or written \(No such file or d",
            ),
            marks=pytest.mark.skipif(sys.platform != "linux", reason="has no /proc"),
        ),
        (["empty", "out"], "empty holds no images; add files ending in"),
        (["in", "out", "--image_size=0"], "image_size is 0; expected .* 16 to 2048"),
        (["in", "out", "--image_size=99999"], "image_size is 99999; expected"),
        (["in", "out", "--image_size=big"], "--image_size is 'big', expected a whole number"),
        (["in", "out", "--image_size=160.5"], "--image_size is '160.5', expected a whole n"),
        (["in", "out", "--image_size"], "'--image_size' has no value"),
        (["in", "out", "--imagesize=160"], "no flag --imagesize: .* mean 'image_size'"),
        (["in", "out", "--face=biggest"], "face is 'biggest', expected 'largest' or 'most_cent"),
        (["in", "out", "--no_face=crop"], "no_face is 'crop', .* Did you mean 'centre_crop'"),
        (["in", "out", "--min_confidence=2"], "min_confidence is 2.0; it must be"),
        (["in", "out", "--min_confidence=high"], "--min_confidence is 'high', expected a number"),
    ],
)
def test_bad_input_is_told_in_a_sentence(source, tmp_path, monkeypatch, arguments, sentence):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "circle").symlink_to("circle")
    (tmp_path / "a file").touch()
    (tmp_path / "report is a folder" / FILE_NAME).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: True)
    with pytest.raises(InputError, match=sentence):
        call("align-faces", arguments)
    assert not (tmp_path / "out").exists()


def test_the_command_ends_with_the_counts(source, tmp_path, monkeypatch, capsys):
    fill(source, ["green.png"], np.full((300, 400, 3), (20, 210, 0), np.uint8))
    fill(source, ["dark.png"], DARK)
    (source / "broken.jpg").write_bytes(b"not an image")
    monkeypatch.setattr(align_faces, "FaceDetector", Detector)
    call("align-faces", [str(source), str(tmp_path / "out"), "--image_size=64"])
    text = capsys.readouterr().out
    assert (
        "6 photos: 4 aligned (1 of them with several faces), 0 cropped, 1 without a face, "
        "1 unreadable" in text
    )
    assert "unreadable: broken.jpg (cannot identify image file)" in text
    assert str(tmp_path / "out" / FILE_NAME) in text
    call(
        "align-faces",
        [str(source), str(tmp_path / "out"), "--image_size=64", "--no_face=centre_crop"],
    )
    assert (
        "4 aligned (1 of them with several faces), 1 cropped, 0 without" in capsys.readouterr().out
    )


@pytest.mark.slow
def test_real_faces_by_the_real_command(shared_data, tmp_path):
    pytest.importorskip("mtcnn", reason="needs the extra faces")
    faces = sorted((shared_data / "faces" / "orl").glob("s[12]/[1-3].pgm"))
    for path in faces:
        fill(
            tmp_path / "in",
            [f"{path.parent.name}/{path.stem}.png"],
            pixels_of(path).astype(np.uint8),
        )
    fill(tmp_path / "in", ["flower.jpg"], photos()[1])

    def run(*arguments):
        command = [sys.executable, "-m", "shift_jax.commands.align_faces", *arguments]
        return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)

    done = run(tmp_path / "in", tmp_path / "out", "--image_size=112")
    assert (done.returncode, done.stderr) == (0, "")
    assert "7 photos: 6 aligned (0 of them with several faces), 0 cropped, 1 without" in done.stdout
    assert files_in(tmp_path / "out") == [f"s{i}/{j}.jpg" for i in (1, 2) for j in (1, 2, 3)]
    refused = run(tmp_path / "nowhere", tmp_path / "out")
    assert refused.returncode == 2 and refused.stderr.startswith("error: ")
