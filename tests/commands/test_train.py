"""The command lines as a user meets them: real processes, real data."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from shift_jax.commands import dispatch
from shift_jax.commands.train import line
from tests.conftest import REPOSITORY

TRAIN = [sys.executable, "train.py"]
SMALL = [
    "--config=configs/quickstart.py",
    "--config.epochs=1.0",
    "--config.log_every_steps=1",
    "--config.tensorboard=false",
]


def environment(devices):
    return {**os.environ, "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}


def run(*arguments, devices=1):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=REPOSITORY,
        env=environment(devices),
        capture_output=True,
        text=True,
    )


MISTAKES = [
    ([], "error: .*config"),
    (["--config=configs/quickstart.py"], "error: .*workdir"),
    (
        ["--config=configs/quickstart.py", "--config.batchsize=3", "--workdir=W"],
        "error: The config has no field 'batchsize'. Did you mean 'batch_size'",
    ),
    (
        ["--config=configs/quickstart.py", "--config.optimizer.momentun=0", "--workdir=W"],
        "error: The config has no field 'optimizer.momentun'. Did you mean 'optimizer.mom",
    ),
    (
        ["--config=configs/quickstart.py", "--config.batch_size=many", "--workdir=W"],
        "error: flag --config.batch_size=many: invalid literal",
    ),
    (
        ["--config=configs/nothing.py", "--workdir=W"],
        "error: There is no config file configs/n",
    ),
    (
        ["--config=configs/cifar.py:cifar100", "--workdir=W"],
        "error: The options 'cifar100' do not name a dataset and a model",
    ),
    (
        ["--config=configs/cifar.py:cifar100,shiftresnet20,expansoin=3", "--workdir=W"],
        "error: Model 'shiftresnet20' has no argument 'expansoin', .*Did you mean 'expansion'",
    ),
    (["--config=configs/quickstart.py:foo", "--workdir=W"], "error: The config .*TypeError"),
    (["--config=benchmarks/table.py", "--workdir=W"], "error: The config benchmarks/table.py can"),
    (["--config=README.md", "--workdir=W"], "error: The config README.md cannot be loaded"),
    (["--config=configs/quickstart.py", "--workdri=W"], "error: Unknown command line flag"),
    (["--config=configs/quickstart.py", "--workdir=W", "x"], "error: 'x' is not a flag"),
]


# Whose images are there.
DIGITS = ("name=digits", "mean=(0.5,)", "std=(0.5,)", "drop_remainder=true")


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES)
def test_bad_command_lines_get_one_sentence(arguments, sentence, tmp_path):
    arguments = [a.replace("=W", f"={tmp_path / 'run'}") for a in arguments]
    if any("expansoin" in a for a in arguments):
        arguments += [f"--config.data.{field}" for field in DIGITS]
    result = run("train.py", *arguments)
    assert result.returncode == 2
    assert re.search(sentence, result.stderr), result.stderr
    assert "Traceback" not in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert not (tmp_path / "run").exists()


# Those of absl, and what argparse says in their place.
OWN_SENTENCES = {
    "error: Unknown command line flag": "error: There is no flag --workdri: .* mean 'workdir'",
    "error: 'x' is not a flag": "error: Unrecognized arguments: x",
}


@pytest.mark.parametrize(("arguments", "sentence"), MISTAKES)
def test_shift_jax_train_says_the_same(arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(REPOSITORY)
    arguments = [a.replace("=W", f"={tmp_path / 'run'}") for a in arguments]
    if any("expansoin" in a for a in arguments):
        arguments += [f"--config.data.{field}" for field in DIGITS]
    assert dispatch.main(["train", *arguments]) == 2
    error = capsys.readouterr().err
    assert re.search(OWN_SENTENCES.get(sentence, sentence), error), error
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_configs_and_overrides_are_those_of_train_py(monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    file = "configs/cifar.py:cifar10,shiftresnet20,expansion=6"
    changes = {"seed": "3", "data.mean": "(0.5, 0.5, 0.5)", "schedule.learning_rate": "1e-2"}
    flags = [f"--config.{name}={value}" for name, value in changes.items()]
    separate = [part for flag in flags for part in flag.split("=")]
    configs = [
        line.parse(arguments).config
        for arguments in (
            [f"--config={file}", "--workdir=x", *flags, "--config.tensorboard=false"],
            [*flags, "--noconfig.tensorboard", "--workdir", "x", "--config", file],
            ["--config", file, *separate, "--config.tensorboard", "false", "--workdir", "x"],
        )
    ]
    assert configs[0] == configs[1] == configs[2]
    assert (configs[0].seed, configs[0].data.mean, configs[0].tensorboard) == (3, (0.5,) * 3, False)
    assert (configs[0].model.expansion, configs[0].schedule.learning_rate) == (6.0, 0.01)
    assert not Path("x").exists()


def test_a_dataset_that_is_not_prepared(tmp_path):
    result = run(
        "train.py",
        "--config=configs/cifar.py:cifar100,shiftresnet20,expansion=3,smoke",
        f"--config.data.data_dir={tmp_path}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert result.returncode == 2
    assert str(tmp_path / "cifar100") in result.stderr and "download_and_prepare" in result.stderr
    assert "Traceback" not in result.stderr and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_sigterm_saves_and_the_same_command_goes_on(tmp_path):
    command = [*TRAIN, *SMALL, f"--workdir={tmp_path}"]
    process = subprocess.Popen(
        command, cwd=REPOSITORY, env=environment(1), stderr=subprocess.PIPE, text=True
    )
    with process:
        for line in process.stderr:
            if line.startswith("step 3/"):
                process.send_signal(signal.SIGTERM)
                break
        rest = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM, rest
    stopped = re.search(r"Stopped by SIGTERM at step (\d+) with its checkpoint saved", rest)
    assert stopped and os.listdir(tmp_path / "checkpoints") == [stopped[1]]

    result = run("train.py", *SMALL, f"--workdir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert f"Resuming at step {stopped[1]}" in result.stderr
    steps = [json.loads(line) for line in (tmp_path / "history.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps if s["kind"] == "train"] == list(range(1, 23))

    evaluated = run("eval.py", f"--workdir={tmp_path}", devices=8)
    assert evaluated.returncode == 0, evaluated.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert f"test top-1 {100 * metrics['top1']:.2f} %" in evaluated.stdout
    assert metrics["examples"] == 360

    reported = run("-m", "shift_jax.commands.report", f"--workdir={tmp_path}")
    assert reported.returncode == 0, reported.stderr
    assert re.search(r"^ *test top-1 \d+\.\d\d %$", reported.stdout, re.MULTILINE)
    assert "parameters 95,354" in reported.stdout
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "error: Give one of --workdir"),
        (["--workdir=nowhere"], "error: nowhere is not the workdir of a run"),
        (["--which=newest", "--workdir=nowhere"], "error: .*which.*latest"),
    ],
)
def test_bad_eval_command_lines(arguments, sentence):
    result = run("eval.py", *arguments)
    assert result.returncode == 2
    assert re.search(sentence, result.stderr), result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr


def test_help_lists_the_flags():
    result = run("train.py", "--help")
    assert "--workdir" in result.stdout and "Trains what a config describes" in result.stdout


@pytest.mark.slow
def test_cifar100_smoke_run_on_the_real_images(shared_data, tmp_path):
    result = run(
        "train.py",
        "--config=configs/cifar.py:cifar100,shiftresnet20,expansion=1,smoke",
        f"--config.data.data_dir={shared_data / 'tfds'}",
        f"--workdir={tmp_path}",
        devices=2,
    )
    assert result.returncode == 0, result.stderr
    assert re.search(r"step 8/8 .* top1 .* examples 256", result.stderr)
