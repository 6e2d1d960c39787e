"""Exit statuses and sentences of all commands, by commands that do what a test says."""

import argparse
import errno
import os
import signal
import subprocess
import sys

import pytest

from shift_jax.commands import exits
from shift_jax.errors import InputError, StorageError
from shift_jax.training.processes.stopping import StoppedError
from tests.conftest import REPOSITORY


def outcome(main, capsys):
    status = exits.run(argparse.Namespace, lambda options: main())
    return status, capsys.readouterr().err


def raising(error):
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "status", "sentence"),
    [
        (InputError("Bad input."), 2, "error: Bad input.\n"),
        (StorageError("The disk is full."), 1, "error: The disk is full.\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/x"),
            1,
            "error: /x cannot be used (No space left on device): make room, fix it or choose "
            "another place; the same command continues from what is saved.\n",
        ),
        (StoppedError(5, signal.SIGTERM), 143, "Stopped by SIGTERM at step 5 with its check"),
        (StoppedError(5, signal.SIGINT), 130, "Stopped by SIGINT at step 5 with its check"),
        (KeyboardInterrupt(), 130, "Interrupted.\n"),
        (SystemExit(3), 3, ""),
        (SystemExit(), 0, ""),
    ],
)
def test_statuses(error, status, sentence, capsys):
    found, printed = outcome(raising(error), capsys)
    assert found == status and printed.startswith(sentence) and printed.count("\n") <= 1


@pytest.mark.parametrize("error", [ZeroDivisionError(), OSError(errno.ENOENT, "No such file")])
def test_bugs_keep_their_stack_trace(error, capsys):
    with pytest.raises(type(error)):
        outcome(raising(error), capsys)


def test_a_mistake_in_the_arguments_runs_nothing(capsys):
    status = exits.run(raising(InputError("No such flag.")), lambda _: pytest.fail("It runs."))
    assert status == 2 and capsys.readouterr().err == "error: No such flag.\n"


def started(redirections, *arguments, **settings):
    """Runs a command with standard streams that a shell redirects."""
    command = f'"$@" {redirections}'
    return subprocess.run(
        ["sh", "-c", command, "sh", sys.executable, *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        **settings,
    )


@pytest.mark.parametrize("redirections", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_dev_null(redirections, tmp_path):
    output = tmp_path / "digits.npz"
    pack = ("-m", "shift_jax.commands", "pack-arrays", "--dataset=digits", f"--output={output}")
    done = started(redirections, *pack)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&-" not in redirections.replace("2>&-", "").replace("<&-", ""))
    assert output.read_bytes().startswith(b"PK")
    done = started(redirections, "-m", "shift_jax.commands", "nothing")
    assert done.returncode == 2 and bool(done.stderr) == ("2>&-" not in redirections)


@pytest.mark.parametrize(
    ("redirections", "script"),
    [
        ("2>&-", ["train.py"]),
        pytest.param(">&- 2>&-", ["-m", "shift_jax.commands", "train"], marks=pytest.mark.slow),
    ],
)
def test_training_with_closed_streams(redirections, script, tmp_path):
    tiny = ("--config", "tests/survival/tiny.py", "--config.epochs", "0.2")
    done = started(redirections, *script, *tiny, "--workdir", tmp_path / "run")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "run" / "history.jsonl").exists()


def test_a_descriptor_that_was_closed_goes_to_no_other_file(tmp_path):
    """What C libraries write to descriptor 2 must not end in a file that Python opened."""
    code = (
        "import os, sys\n"
        "from argparse import Namespace\n"
        "from shift_jax.commands import exits\n"
        "def main(options):\n"
        "    with open(sys.argv[1], 'w') as file:\n"
        "        assert file.fileno() > 2\n"
        "        os.write(2, b'noise')\n"
        "sys.exit(exits.run(Namespace, main))\n"
    )
    done = started("<&- >&- 2>&-", "-c", code, tmp_path / "file")
    assert done.returncode == 0 and (tmp_path / "file").read_bytes() == b""


def test_a_name_that_the_terminal_cannot_show_is_escaped():
    code = (
        "import sys\n"
        "from argparse import Namespace\n"
        "from shift_jax.commands import exits\n"
        "sys.exit(exits.run(Namespace, lambda _: print('\\udce9.jpg')))\n"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = started("", "-c", code, env=environment)
    assert (done.returncode, done.stdout) == (0, "\\udce9.jpg\n")
