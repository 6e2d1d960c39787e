"""`shift-jax`, and what all its commands do alike."""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib

import pytest

from shift_jax.commands import dispatch
from shift_jax.commands.dispatch import COMMANDS
from shift_jax.commands.line import documentation
from shift_jax.moved import _COMMANDS as OLD_NAMES
from shift_jax.version import __version__
from tests.conftest import REPOSITORY

COMMANDS_FOLDER = REPOSITORY / "shift_jax" / "commands"
LAYER = {"__init__", "__main__", "absl_flags", "config_file", "dispatch", "exits", "line"}


def run(*arguments, options=(), **settings):
    return subprocess.run(
        [sys.executable, *options, *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        **settings,
    )


def test_the_console_script_is_the_dispatcher():
    scripts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["scripts"]
    module, name = scripts["shift-jax"].split(":")
    assert getattr(sys.modules[module], name) is dispatch.main


def test_every_module_is_a_command_or_of_the_layer():
    modules = {path.stem for path in COMMANDS_FOLDER.glob("*.py")} - LAYER
    assert sorted(COMMANDS) == sorted(name.replace("_", "-") for name in modules)


def test_the_overview_has_a_line_for_each_command_and_imports_no_jax():
    code = (
        "import sys\n"
        "from shift_jax.commands.dispatch import main\n"
        "status = main(['--help'])\n"
        "assert not {'jax', 'numpy', 'ml_collections'} & set(sys.modules)\n"
        "sys.exit(status)\n"
    )
    done = run("-c", code)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    for name in COMMANDS:
        (line,) = [line for line in lines if line.split()[:1] == [name]]
        assert len(line) <= 110 and line.endswith((".", "?")), line


def test_version(capsys):
    assert dispatch.main(["--version"]) == 0
    assert capsys.readouterr().out == f"shift-jax {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tran"], r"There is no command 'tran'\. Did you mean 'train'"),
        (["accuracy_figures"], "Did you mean 'accuracy-figures'"),
        (["--verson"], "There is no command '--verson'"),
        ([], "Name a command: train, eval, "),
    ],
)
def test_no_command(arguments, sentence, capsys):
    assert dispatch.main(arguments) == 2
    printed = capsys.readouterr()
    assert re.match(f"error: .*{sentence}", printed.err) and not printed.out
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("name", COMMANDS)
def test_help(name, capsys):
    for flag in ("--help", "-h"):
        assert dispatch.main([name, "ignored", flag, "--nonsense"]) == 0
    helps = capsys.readouterr().out
    text = helps[: len(helps) // 2]
    assert helps == 2 * text
    assert text.startswith(f"usage: shift-jax {name} ") and documentation(name) in text
    assert f"\n    shift-jax {name} " in text  # An example.
    flags = dispatch.command(name).line.flags
    assert all(f"\n  {flag} " in text for flag in flags)


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_flag_an_abbreviation_and_an_empty_value(name, capsys):
    flags = dispatch.command(name).line.flags
    flag = max(flags, key=len)
    takes_a_model = name in ("count", "import-weights")
    for wrong in (f"{flag}x=1", f"{flag[:-1]}=1"):
        assert dispatch.main([name, wrong]) == 2
        error = capsys.readouterr().err
        # Without a model there is nothing to say whether the flag is one of its arguments.
        assert f"Did you mean '{flag[2:]}'" in error or (takes_a_model and "required" in error)
    for empty in ([f"{flag}="], [flag, ""]):
        assert dispatch.main([name, *empty]) == 2
        assert f"error: {flag}= has no value" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_too(name):
    done = run("-m", f"shift_jax.commands.{name.replace('-', '_')}", "--nonsens=1", options=["-OO"])
    assert done.returncode == 2 and done.stdout == ""
    assert re.fullmatch("error: .*\n", done.stderr), done.stderr


def test_help_without_docstrings():
    for arguments in (["-m", "shift_jax.commands", "verify"], ["train.py"], ["eval.py"]):
        done = run(*arguments, "--help", options=["-OO"])
        name = arguments[-1].removesuffix(".py")
        assert documentation(name) in done.stdout and "None\n" not in done.stdout


@pytest.mark.parametrize("name", OLD_NAMES)
def test_old_names_say_where_the_command_went(name):
    # -S, so that no other installation of the package is found, which may still have them.
    path = os.pathsep.join([str(REPOSITORY), sysconfig.get_path("purelib")])
    done = run("-m", name, "--help", options=["-S"], env={**os.environ, "PYTHONPATH": path})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"moved: use `shift-jax {OLD_NAMES[name]}`\n"
    assert OLD_NAMES[name] in COMMANDS
    done = run("-c", f"import {name}", options=["-S"], env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 1 and "ImportError: moved: use `shift-jax" in done.stderr
