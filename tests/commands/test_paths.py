"""Every path of every command and config goes through `usable_path`."""

import argparse
import os
from pathlib import Path

import pytest

from shift_jax.commands.dispatch import COMMANDS, command
from shift_jax.commands.line import RefusedError
from shift_jax.config.experiment import TASKS
from shift_jax.config.setting import walk
from shift_jax.errors import InputError
from tests.commands.call import call

NO_PATHS = {
    "train": {"config", "coordinator_address"},
    "eval": {"weights", "split", "coordinator_address"},
    "predict": {"weights"},
    "stylize": {"style"},
    "import-weights": {"model", "dataset"},
    "count": {"model"},
    "allocation": {"weights", "name"},
    "figures": {"weights", "module", "split"},
    "sweep": {"models"},
}
"""Arguments that take any text and are not paths; a path in --config is read with the overrides."""

NO_PATH_FIELDS = {
    "model.name",
    "data.name",
    "data.train_split",
    "data.eval_split",
    "style.content_layer",
}


def _text_arguments(name: str) -> dict[str, argparse.Action]:
    """The arguments of a command that take the text of a path, by name."""
    found = {}
    for action in command(name).line._actions:
        if callable(action.type):
            try:
                action.type("x/y.safetensors")
            except RefusedError:  # A number or a choice.
                continue
            found[action.dest] = action
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_argument_is_a_checked_path_or_known_to_be_none(name, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file").touch()
    arguments = _text_arguments(name)
    assert NO_PATHS.get(name, set()) <= arguments.keys()
    for dest in arguments.keys() - NO_PATHS.get(name, set()):
        read = arguments[dest].type
        assert read("~/x.safetensors") == tmp_path / "x.safetensors", dest
        for wrong in ("", "~/a\0.safetensors", "~/file/x.safetensors", f"{'x' * 300}.safetensors"):
            with pytest.raises(RefusedError, match=dest):
                read(wrong)


@pytest.mark.parametrize("task", TASKS)
def test_every_text_in_a_config_is_a_path_or_known_to_be_none(task):
    for field in walk(TASKS[task]()):
        is_known = field.setting.path or field.setting.choices or field.name in NO_PATH_FIELDS
        assert field.type is not str or is_known, field.name


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--workdir="], "^--workdir= has no value: give one.$"),
        (["--workdir={tmp}/\udce9"], r"^--workdir is '.*\\udce9', which is not UTF-8"),
        (["--workdir={tmp}/file/run"], "/file/run cannot exist .*: choose another --workdir"),
        (
            ["--workdir={tmp}/run", "--config.init_from={tmp}/\udce9"],
            "^'--config.init_from=.* is not UTF-8",
        ),
        (
            ["--workdir={tmp}/run", "--config.data.data_dir={tmp}/file/x"],
            "another data.data_dir",
        ),
    ],
)
def test_train_refuses_paths_before_it_creates_anything(flags, sentence, tmp_path):
    (tmp_path / "file").touch()
    flags = [flag.replace("{tmp}", str(tmp_path)) for flag in flags]
    with pytest.raises(InputError, match=sentence):
        call("train", ["--config=configs/quickstart.py", *flags])
    assert os.listdir(tmp_path) == ["file"]


def test_the_config_file_may_be_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    text = Path("configs/quickstart.py").read_text()
    (tmp_path / "mine.py").write_text(text)
    for arguments in (["--config=~/mine.py"], ["--config", "~/mine.py"]):
        options = command("train").line.parse([*arguments, "--workdir=~/run"])
        assert options.config.data.name == "digits" and options.workdir == tmp_path / "run"
    with pytest.raises(InputError, match="There is no config file .*/missing.py"):
        command("train").line.parse(["--config=~/missing.py", "--workdir=~/run"])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("data.(=3", r"no field 'data.\('"),
        ("data.x'y=3", "no field"),
        ("sched(2 3)=1", r"no field 'sched\(2 3\)'"),
        ("seed=\udce9", "is not UTF-8"),
    ],
)
def test_overrides_that_cannot_be_parsed(override, sentence):
    with pytest.raises(InputError, match=sentence) as error:
        command("train").line.parse(
            ["--config=configs/quickstart.py", "--workdir=x", f"--config.{override}"]
        )
    assert "\n" not in str(error.value)
