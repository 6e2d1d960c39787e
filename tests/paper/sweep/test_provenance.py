import shutil
import subprocess

import jax
import pytest

import shift_jax
from shift_jax.paper.sweep import provenance


def git(folder, *arguments):
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of one file in a git repository."""
    if shutil.which("git") is None:
        pytest.skip("git is not here")
    folder = tmp_path / "shift_jax"
    folder.mkdir()
    (folder / "version.py").write_text("")
    git(tmp_path, "init", "-q")
    monkeypatch.setattr(shift_jax, "__file__", str(folder / "__init__.py"))
    return folder


def test_the_commit_and_whether_the_code_is_as_it_was(package):
    # In a repository that does not track the package, as one around a virtual environment.
    assert provenance.commit() == shift_jax.__version__
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-q", "-m", "x")
    commit = git(package, "rev-parse", "--short", "HEAD")
    assert provenance.commit() == commit
    (package.parent / "results.csv").write_text("a row")
    assert provenance.commit() == commit
    (package / "new.py").write_text("")
    assert provenance.commit() == commit + "+"


def test_without_git_it_is_the_version(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.commit() == shift_jax.__version__


def test_the_device_is_named(monkeypatch):
    cores = provenance.device_name().rpartition(", ")[2]
    assert cores.split()[1] in ("core", "cores") and int(cores.split()[0]) > 0

    class Gpu:
        platform = "gpu"
        device_kind = "NVIDIA H100 80GB HBM3"

    monkeypatch.setattr(jax, "devices", lambda: [Gpu()])
    assert provenance.device_name() == "1 × NVIDIA H100 80GB HBM3"
