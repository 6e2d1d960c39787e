import jax
import numpy as np
import pytest
from PIL import Image

from shift_jax import verify
from shift_jax.errors import InputError
from shift_jax.training.loop import train
from tests.tasks.faces import faces_config, write_faces


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(folder of faces, folder of a run that was trained on them)."""
    root = tmp_path_factory.mktemp("verify")
    config = faces_config(write_faces(root / "faces"))
    config.eval_every_epochs = 6.0
    train(config, root / "run", devices=jax.devices()[:1])
    return root / "faces", root / "run"


def call(trained, *arguments):
    verify.main([*arguments, f"--model={trained[1]}", "--aligned=true"])


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
    assert "32 embeddings of 8 numbers written" in captured.out and "1 photos left" in captured.out
    assert "broken.jpg can not be read as an image" in captured.err
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
    verifier = verify.Verifier(run, aligned=True)
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
        (["a.jpg", "b.jpg", "--threshold=high"], "threshold is 'high', expected a number"),
        (["a.jpg", "--gallery=none.npz"], "none.npz is no file of embeddings: make one by --embed"),
        (["a.jpg", "--gallery=x.npz", "--count=0"], "count is 0, expected 1 or more"),
        (["--embed=nowhere", "--output=x.npz"], "nowhere"),
        (["--embed=."], "Say where the embeddings shall go: --output=faces.npz"),
        (["--embed=.", "--output=no/x.npz"], "The folder of --output=no/x.npz does not exist"),
    ],
)
def test_bad_arguments_are_told_in_a_sentence(trained, arguments, message, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        call(trained, *arguments)
    assert not list(tmp_path.iterdir())


def test_a_gallery_of_nan_or_of_another_network_is_refused(trained, tmp_path):
    path = tmp_path / "bad.npz"
    np.savez(path, files=np.array(["a"]), embeddings=np.full((1, 8), np.nan, np.float32))
    with pytest.raises(InputError, match="1 of 1 embeddings are not finite"):
        call(trained, "a.jpg", f"--gallery={path}")
    np.savez(path, files=np.array(["a"]), embeddings=np.ones((1, 5), np.float32))
    photo = tmp_path / "a.png"
    Image.new("RGB", (20, 20), "red").save(photo)
    with pytest.raises(InputError, match="embeddings have 5 numbers and this network's 8"):
        call(trained, str(photo), f"--gallery={path}")


def test_only_face_networks_verify(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text('{"task": "classification"}')
    with pytest.raises(InputError, match="is a run of the task 'classification', expected one tha"):
        verify.main(["a.jpg", "b.jpg", f"--model={tmp_path}"])
    with pytest.raises(InputError, match="checkpoint"):
        verify.main(["a.jpg", "b.jpg", f"--model={tmp_path / 'none'}"])


def test_an_unevaluated_checkpoint_has_no_threshold(trained, capsys):
    verifier = verify.Verifier(trained[1], aligned=True)
    verifier.threshold = None
    assert "give --threshold" in verify._verdict(verifier, 0.5)
