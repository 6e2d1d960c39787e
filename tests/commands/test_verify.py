import io
import os
import shutil
import signal
import sys

import jax
import numpy as np
import pytest

from shift_jax.commands import dispatch
from shift_jax.data.faces.gallery import load_gallery
from shift_jax.errors import InputError
from shift_jax.tasks import verifier
from shift_jax.training import inference
from shift_jax.training.inference import load_verifier
from shift_jax.training.runs.selection import checkpoint_of
from shift_jax.training.train import train
from tests.commands.call import call as call_command
from tests.tasks.faces import faces_config, write_faces


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder of faces, folder of a run that was trained on them)."""
    root = tmp_path_factory.mktemp("verify")
    config = faces_config(write_faces(root / "faces"))
    train(config, root / "run", devices=jax.devices()[:1])
    return root / "faces", root / "run"


@pytest.fixture(scope="module")
def gallery(trained, tmp_path_factory):
    """File of the embeddings of all faces."""
    path = tmp_path_factory.mktemp("gallery") / "faces.npz"
    call(trained, f"--embed={trained[0]}", f"--output={path}")
    return path


def call(trained, *arguments):
    call_command("verify", [*arguments, f"--model={trained[1]}", "--aligned=true"])


def test_a_photo_is_the_same_person_as_itself_and_another_place_is_not(trained, capsys):
    faces, _ = trained
    one = str(faces / "p0" / "p0_0001.png")
    call(trained, one, one)
    out = capsys.readouterr().out
    assert out.startswith("similarity 1.0000, threshold 0.") and "the same person" in out
    call(trained, one, str(faces / "p1" / "p1_0001.png"))
    assert "different persons" in capsys.readouterr().out
    call(trained, one, str(faces / "p1" / "p1_0001.png"), "--threshold=-1")
    assert "threshold -1.0000: the same person" in capsys.readouterr().out


def test_a_folder_is_embedded_and_searched(trained, capsys, tmp_path):
    faces, _ = trained
    gallery = tmp_path / "faces.npz"
    (faces / "p2" / "broken.jpg").write_bytes(b"no image")
    call(trained, f"--embed={faces}", f"--output={gallery}")
    (faces / "p2" / "broken.jpg").unlink()
    captured = capsys.readouterr()
    assert (
        "32 embeddings of 8 numbers written" in captured.out and "1 photo left out" in captured.out
    )
    assert "broken.jpg cannot be read as an image" in captured.err
    with np.load(gallery) as arrays:
        assert arrays["embeddings"].shape == (32, 8)
        np.testing.assert_allclose(np.linalg.norm(arrays["embeddings"], axis=1), 1, rtol=1e-5)
        files = list(arrays["files"])
    assert files == sorted(files) and files[0] == str(faces / "p0" / "p0_0001.png")

    call(trained, files[5], f"--gallery={gallery}", "--count=3")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0].split() == ["1.0000", "same", files[5]]
    assert float(lines[0].split()[0]) >= float(lines[1].split()[0]) >= float(lines[2].split()[0])


def test_batches_and_single_photos_give_the_same_embeddings(trained):
    faces, run = trained
    verifier = load_verifier(run, aligned=True)
    files = sorted(map(str, faces.glob("*/*.png")))
    together, _ = verifier.embed([*files, *files, *files])  # 96: a whole batch and a part.
    assert together.embeddings.shape == (96, 8)
    np.testing.assert_allclose(together.embeddings[:32], together.embeddings[64:], atol=1e-6)
    alone = verifier.embeddings([verifier.image(files[7])])
    np.testing.assert_allclose(alone[0], together.embeddings[7], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.jpg"], "Name two photos, or one with --gallery=FILE.npz, or --embed=FOLDER"),
        (["a.jpg", "b.jpg"], "There is no photo a.jpg: name an image file"),
        (["a.jpg", "b.jpg", "--face=left"], "face is 'left', expected 'largest' or 'most_central'"),
        (["a.jpg", "b.jpg", "--treshold=1"], "no flag --treshold.*Did you mean 'threshold'"),
        (
            ["a.jpg", "b.jpg", "--threshold=high"],
            "threshold is 'high', expected a similarity from -1 to 1",
        ),
        (
            ["a.jpg", "b.jpg", "--threshold=nan"],
            "threshold is 'nan', expected a similarity from -1 to 1",
        ),
        (
            ["a.jpg", "b.jpg", "--threshold=1.5"],
            "threshold is '1.5', expected a similarity from -1 to 1",
        ),
        (["a.jpg", "b.jpg", "--threshold="], "--threshold= has no value: give one, or leave it"),
        (["a.jpg", "b.jpg", "--output=x.npz"], "--output=x.npz has no use here, since only --emb"),
        (["a.jpg", "b.jpg", "--count=3"], "--count=3 has no use here, since only the faces in"),
        (["a.jpg", "b.jpg", "--face=largest"], "--face=largest has no use here, since with --al"),
        (["--embed=.", "--gallery=x.npz"], "--embed makes a file of embeddings and --gallery sea"),
        (["a.jpg", "--gallery=x.npz", "--output=y"], "--output=y has no use here, since only"),
        (
            ["--embed=.", "--output=x.npz", "--threshold=0.5"],
            "--threshold=0.5 has no use here, since --embed compares no faces: leave it out",
        ),
        (
            ["a.jpg", "--gallery=none.npz"],
            "none.npz is not a file of embeddings .No such file",
        ),
        (
            ["a.jpg", "--gallery=x.npz", "--count=0"],
            "count is '0', expected a whole number of at least 1",
        ),
        (["--embed=nowhere", "--output=x.npz"], "nowhere"),
        (["--embed=."], "Say where to write the embeddings: --output=faces.npz"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(trained, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        call(trained, *arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("no/x.npz", "The folder of .*no/x.npz does not exist: create it"),
        (".", "is a folder: name a file"),
        ("/", "is a folder: name a file"),
        ("folder", "folder is a folder: name a file, such as .*folder/faces.npz"),
        ("/proc/x.npz", "/proc/x.npz cannot be written .*: choose another --output"),
        ("/dev/null", "/dev/null is not a regular file: name a file"),
        ("x" * 300, "x cannot exist .File name too long.: choose another --output"),
    ],
)
def test_the_output_is_tried_before_any_photo(trained, output, message, monkeypatch, tmp_path):
    def load(*_, **__):
        pytest.fail("The network was loaded.")

    monkeypatch.setattr(inference, "load_verifier", load)
    monkeypatch.chdir(tmp_path)
    os.mkdir("folder")
    with pytest.raises(InputError, match=message):
        call(trained, f"--embed={trained[0]}", f"--output={output}")
    assert os.listdir() == ["folder"]


def test_an_older_gallery_stays_until_the_new_one_is_whole(trained, monkeypatch, tmp_path):
    path = tmp_path / "faces.npz"
    path.write_bytes(b"older")

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(InputError, match="faces.npz cannot be written .No space left on device.: "):
        call(trained, f"--embed={trained[0]}", f"--output={path}")
    assert path.read_bytes() == b"older" and os.listdir(tmp_path) == ["faces.npz"]


def test_photos_are_embedded_batch_by_batch_and_a_stop_writes_nothing(
    trained, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(verifier, "_BATCH", 4)
    taken = []
    image, embeddings = verifier.Verifier.image, verifier.Verifier.embeddings

    def counted(self, photo):
        taken[-1] += 1
        if sum(taken) == 11:
            signal.raise_signal(signal.SIGINT)
            taken.append("which is finished")
        return image(self, photo)

    def embedded(self, images):
        taken.append(0)
        return embeddings(self, images)

    monkeypatch.setattr(verifier.Verifier, "image", counted)
    monkeypatch.setattr(verifier.Verifier, "embeddings", embedded)
    taken.append(0)
    with pytest.raises(KeyboardInterrupt):
        call(trained, f"--embed={trained[0]}", f"--output={tmp_path / 'faces.npz'}")
    assert taken == [4, 4, 3, "which is finished"]
    assert not os.listdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        call_command("verify", ["--help"])
    assert not stop.value.code
    assert "if Ctrl-C or SIGTERM stops it before, it writes nothing" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_names_that_cannot_be_shown_are_escaped(trained, encoding, monkeypatch, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    photo = os.path.join(folder, os.fsdecode(b"lat\xe9.png"))
    shutil.copy(trained[0] / "p0" / "p0_0001.png", photo)
    output = os.path.join(tmp_path, os.fsdecode(b"\xe9.npz"))
    out = io.TextIOWrapper(io.BytesIO(), encoding, errors="strict")
    monkeypatch.setattr(sys, "stdout", out)
    for arguments in ([f"--embed={folder}", f"--output={output}"], [photo, f"--gallery={output}"]):
        options = [*arguments, f"--model={trained[1]}", "--aligned=true"]
        assert dispatch.main(["verify", *options]) == 0
    out.flush()
    first, second = out.buffer.getvalue().decode(encoding).splitlines()
    assert first.startswith("1 embedding of 8 numbers written to")
    assert first.endswith("/\\udce9.npz, 0 photos left out")
    assert second.startswith("1.0000  same") and second.endswith("/lat\\udce9.png")


def npz(**arrays):
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


ONE = np.eye(1, 8, dtype=np.float32)
GOOD = {"files": np.array(["a"]), "embeddings": ONE, "network": "x", "aligned": True}
MANY = npz(**GOOD | {"files": ["ab"] * 2000, "embeddings": ONE.repeat(2000, axis=0)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is damaged or of another kind"),
        (b"no zip file", "it is damaged or of another kind"),
        (b"PK\x03\x04 cut short", "it is damaged or of another kind"),
        (npy(ONE), "it is damaged or of another kind"),
        (npz(**GOOD)[:-30], "it is damaged or of another kind"),
        (npz(**GOOD).replace(ONE.tobytes(), ONE[:, ::-1].tobytes()), "it is damaged or of another"),
        (MANY.replace(b"<U2", b"<U1"), "it is damaged or of another kind"),
        (npz(embeddings=ONE), "it is damaged or of another kind"),
        (npz(**GOOD | {"files": np.array([None])}), "it is damaged or of another kind"),
        (npz(**GOOD | {"files": "a"}), "its arrays have other types or shapes"),
        (npz(**GOOD | {"files": [7]}), "its arrays have other types or shapes"),
        (npz(**GOOD | {"embeddings": ONE[0]}), "its arrays have other types or shapes"),
        (npz(**GOOD | {"embeddings": [["1.0"]]}), "its arrays have other types or shapes"),
        (npz(**GOOD | {"network": ["x"]}), "its arrays have other types or shapes"),
        (npz(**GOOD | {"aligned": "x"}), "its arrays have other types or shapes"),
        (npz(**GOOD | {"files": ["a", "b"]}), "it has 2 names for 1 embeddings"),
        (npz(**GOOD | {"files": np.zeros(0, "U1"), "embeddings": ONE[:0]}), "it is empty"),
        (npz(**GOOD | {"embeddings": ONE * np.nan}), "1 of its 1 embeddings do not have length 1"),
        (npz(**GOOD | {"embeddings": ONE * 2}), "1 of its 1 embeddings do not have length 1"),
    ],
)
def test_damaged_galleries_are_refused_in_a_sentence(content, reason, tmp_path):
    path = tmp_path / "bad.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"bad.npz is not a file of embed.* \({reason}.*make one"):
        load_gallery(path)


def test_a_gallery_with_any_byte_changed_is_read_as_it_was_or_refused(tmp_path):
    content = npz(**GOOD)
    path = tmp_path / "faces.npz"
    refused = 0
    for position in range(0, len(content), 3):
        path.write_bytes(
            content[:position] + bytes([content[position] ^ 3]) + content[position + 1 :]
        )
        try:
            loaded = load_gallery(path)
        except InputError:
            refused += 1
        else:
            assert loaded.network == "x" and loaded.aligned and loaded.files == ["a"]
            np.testing.assert_array_equal(loaded.embeddings, ONE)
    assert refused > len(content) / 6


def test_only_galleries_of_the_same_network_are_searched(trained, gallery, tmp_path, capsys):
    faces, run = trained
    photo = str(faces / "p1" / "p1_0002.png")
    best = checkpoint_of(run, "best")
    shutil.copytree(best, tmp_path / "moved")
    call((faces, tmp_path / "moved"), photo, f"--gallery={gallery}")
    captured = capsys.readouterr()
    assert captured.out.startswith("1.0000") and not captured.err

    (other,) = [each for each in best.parent.glob("[0-9]*") if each != best]
    with pytest.raises(InputError, match="faces.npz has the embeddings of another network, which"):
        call((faces, other), photo, f"--gallery={gallery}")
    loaded = load_gallery(gallery)
    np.savez(tmp_path / "raw.npz", **loaded._replace(aligned=False)._asdict())
    call(trained, photo, f"--gallery={tmp_path / 'raw.npz'}")
    assert "p1_0002.png, the photos of the gallery were aligned by MTC" in capsys.readouterr().err


def test_only_face_networks_verify(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text('{"task": "classification"}')
    with pytest.raises(InputError, match="is a run of the task 'classification', expected one tha"):
        call_command("verify", ["a.jpg", "b.jpg", f"--model={tmp_path}"])
    with pytest.raises(InputError, match="checkpoint"):
        call_command("verify", ["a.jpg", "b.jpg", f"--model={tmp_path / 'none'}"])


def test_an_unevaluated_checkpoint_has_no_threshold(trained, capsys):
    verifier = load_verifier(trained[1], aligned=True)
    verifier.threshold = None
    assert "give --threshold" in verifier.verdict(0.5)


def test_a_missing_run_is_told_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match="There is no folder .*/none: name that of a run, or of"):
        load_verifier(tmp_path / "none")
