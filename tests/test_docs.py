"""The site builds strictly, without a broken link, and has every command and public name."""

import os
import subprocess
import sys

import pytest

import shift_jax
from shift_jax.commands.dispatch import COMMANDS
from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_the_site_builds_and_has_every_name(tmp_path):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -e .[dev]")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    commands = (tmp_path / "commands" / "index.html").read_text()
    assert [name for name in COMMANDS if f'<h2 id="{name}">' not in commands] == []
    api = (tmp_path / "api" / "index.html").read_text()
    public = [name for name in shift_jax.__all__ if not name.startswith("__")]
    assert [name for name in public if f'.{name}"' not in api] == []
    assert "<blockquote>" not in api  # An example that is not indented more than its docstring.


def test_the_readme_stays_within_two_screens():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) <= 130
