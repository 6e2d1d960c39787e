import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from shift_jax.errors import InputError
from shift_jax.tasks.roc_picture import save_roc, steps

SAME = np.arange(60) < 20
SCORES = np.random.default_rng(0).normal(size=60) + SAME


def test_steps_are_the_best_within_each_rate():
    far, tar = steps(SCORES, SAME)
    for rate, height in zip(far, tar, strict=True):
        allowed = [
            np.mean(SCORES[SAME] >= threshold)
            for threshold in [*SCORES, np.inf]
            if np.mean(SCORES[~SAME] >= threshold) <= rate
        ]
        assert height == pytest.approx(max(allowed))
    np.testing.assert_allclose(far, np.arange(1, 41) / 40)


def test_steps_begin_at_one_false_accept_where_it_is_skipped():
    far, tar = steps(np.array([3.0, 1, 1, 1]), np.array([True, True, False, False]))
    np.testing.assert_array_equal(far, [0.5, 1])
    np.testing.assert_array_equal(tar, [0.5, 1])


def test_picture_shows_each_curve(tmp_path):
    def pixels(curves):
        save_roc(tmp_path / "roc.png", curves)
        with Image.open(tmp_path / "roc.png") as image:
            return np.asarray(image.convert("RGB"))

    one = pixels({"a": (SCORES, SAME)})
    two = pixels({"a": (SCORES, SAME), "b": (-SCORES, SAME)})
    orange = np.array([255, 127, 14])
    assert not (one == orange).all(axis=-1).any()
    assert (two == orange).all(axis=-1).sum() > 300
    assert [path.name for path in tmp_path.iterdir()] == ["roc.png"]


def test_legend_has_names_and_areas(tmp_path):
    save_roc(tmp_path / "roc.svg", {"perfect": (SAME.astype(float), SAME)})
    text = (tmp_path / "roc.svg").read_text()
    # matplotlib writes texts as outlines, and what they say in comments.
    assert "<!-- perfect: AUC 100.00 % -->" in text
    assert "<!-- chance: AUC 50 % -->" in text
    assert "<!-- False accept rate (FAR) -->" in text


def test_a_failure_leaves_the_old_picture(tmp_path):
    path = tmp_path / "roc.png"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="1 of 60 scores are not finite"):
        save_roc(path, {"a": (np.append(SCORES[1:], np.nan), SAME)})
    assert path.read_bytes() == b"old"


def test_refuses(tmp_path):
    with pytest.raises(InputError, match="unsupported image extension"):
        save_roc(tmp_path / "roc.txt", {"a": (SCORES, SAME)})
    with pytest.raises(InputError, match="no ROC curve"):
        save_roc(tmp_path / "roc.png", {})
    with pytest.raises(InputError, match=r"cannot be written \(No such file"):
        save_roc(tmp_path / "none" / "roc.png", {"a": (SCORES, SAME)})
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=r"cannot be written \(Is a directory"):
        save_roc(tmp_path / "folder.png", {"a": (SCORES, SAME)})
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_the_protocols_import_no_heavy_library():
    code = (
        "import sys\n"
        "import shift_jax.tasks.face_pairs, shift_jax.tasks.roc_picture\n"
        "print([m for m in ('sklearn', 'matplotlib', 'tensorflow', 'PIL') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
