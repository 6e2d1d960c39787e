"""Several processes and other numbers of devices train as one process on one device does."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.training.processes.distributed import initialize_from_flags
from shift_jax.training.processes.stopping import StoppedError
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.runs.history import read_history
from shift_jax.training.train import train
from tests.conftest import REPOSITORY
from tests.survival import commands
from tests.survival.commands import TINY, Training, train_command


def assert_close(workdir, other):
    """Two runs learned the same, but for the order in which their devices' sums are added.

    That changes the last bits, and each step of training magnifies what came before: we saw 4e-6
    after one epoch and 2e-3 after four.
    """
    ours, theirs = losses(workdir), losses(other)
    np.testing.assert_allclose(ours[:4], theirs[:4], rtol=1e-5)
    np.testing.assert_allclose(ours, theirs, rtol=1e-2)


def losses(workdir):
    return [r["loss"] for r in read_history(workdir) if r["kind"] == "train"]


# Of the flags.


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"process_id": 0},
            "--process_id was given without --coordinator_address: give --coordinator_address, "
            "--num_processes and --process_id together, or none of them.",
        ),
        ({"num_processes": 2}, "--num_processes was given without --coordinator_address: give"),
        ({"coordinator_address": "a:1"}, "--coordinator_address was given without --num_proc"),
        ({"coordinator_address": "a:1", "num_processes": 2}, "without --process_id: give"),
        (
            {"coordinator_address": "a:1", "num_processes": 2, "process_id": 2},
            "--process_id is 2, expected a number from 0 to 1, one below --num_processes.",
        ),
        (
            {"coordinator_address": "a:1", "num_processes": 1, "process_id": 1},
            "--process_id is 1, expected a number from 0 to 0",
        ),
        ({"process_id": 0, "distributed": "never"}, "--process_id needs --distributed=auto or"),
    ],
)
def test_flags_that_do_not_fit_together(values, sentence):
    with pytest.raises(InputError, match=re.escape(sentence)):
        initialize_from_flags(**values)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"distributed": "never"},
        {"num_processes": 1},
        {"coordinator_address": "127.0.0.1:1", "num_processes": 1, "process_id": 0},
    ],
)
def test_one_process_joins_nobody(values):
    assert initialize_from_flags(**values) is None


def test_bad_flags_end_the_command_with_one_sentence(tmp_path):
    result = subprocess.run(
        [*train_command(tmp_path / "run", *TINY), "--distributed=always"],
        cwd=REPOSITORY,
        env=commands.environment(),
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert re.fullmatch(
        r"error: The run's processes cannot find each other \(.*\): give "
        r"--coordinator_address=HOST:PORT, --num_processes and --process_id, and start all\.\n",
        result.stderr,
    )
    assert not (tmp_path / "run").exists()


# Of the devices of one process.


def train_in_parts(config, workdir, parts, monkeypatch):
    """Trains on these numbers of devices, (devices, fsdp, last step) each.

    Checks that what is restored is what was saved.
    """
    restored = {}
    read_latest = Checkpoints.restore_latest

    def restore_latest(self, template, *arguments, **options):
        found = read_latest(self, template, *arguments, **options)
        if found:
            state, step = found
            assert {d for leaf in jax.tree.leaves(state) for d in leaf.sharding.device_set} == set(
                jax.tree.leaves(template)[0].sharding.mesh.devices.flat
            )
            state = state.replace(rng=jax.random.key_data(state.rng))
            names = jax.tree_util.tree_leaves_with_path(state)
            restored[step] = {
                jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
                for path, leaf in names
            }
        return found

    monkeypatch.setattr(Checkpoints, "restore_latest", restore_latest)
    for devices, fsdp, last in parts:
        config.fsdp = fsdp
        ends = last == parts[-1][-1]
        with contextlib.nullcontext() if ends else pytest.raises(StoppedError, match=f"{last} "):
            train(
                config,
                workdir,
                devices=jax.devices()[:devices],
                should_stop=lambda step, last=last: step == last,
            )
    for step, state in restored.items():
        saved = commands.arrays(workdir, step)
        assert saved.keys() == state.keys()
        for name, array in saved.items():
            assert array.dtype == state[name].dtype and array.shape == state[name].shape
            assert array.tobytes() == state[name].tobytes(), f"{name} of step {step}"
    return sorted(restored)


@pytest.fixture
def one_device(tiny_config, tmp_path):
    workdir = tmp_path / "one"
    train(tiny_config, workdir, devices=jax.devices()[:1])
    return workdir


@pytest.mark.slow
def test_eight_then_four_then_one_device(tiny_config, tmp_path, one_device, monkeypatch):
    parts = [(8, 1, 4), (4, 1, 9), (1, 1, 14)]
    tiny_config.keep_latest = 5
    assert train_in_parts(tiny_config, tmp_path / "parts", parts, monkeypatch) == [4, 9]
    assert_close(tmp_path / "parts", one_device)


@pytest.mark.slow
def test_a_shared_state_trains_and_resumes_unshared(tiny_config, tmp_path, one_device, monkeypatch):
    # The arrays of the tiny network are too small to be worth sharing.
    monkeypatch.setattr("shift_jax.training.mesh._SMALLEST_SHARDED_ELEMENTS", 1)
    parts = [(8, 4, 5), (8, -1, 8), (8, 1, 11), (4, 2, 14)]
    tiny_config.keep_latest = 5
    assert train_in_parts(tiny_config, tmp_path / "parts", parts, monkeypatch) == [5, 8, 11]
    assert_close(tmp_path / "parts", one_device)


# Of two processes.

ARGUMENTS = (
    *TINY,
    "--config.epochs=3.0",
    "--config.checkpoint_every_steps=4",
    "--config.eval_batch_size=64",
    "--config.data.num_workers=1",
    # Many, so that what a stop saved is still there at the end.
    "--config.keep_latest=20",
)


class Pair:
    """Two processes of four devices each, one run."""

    def __init__(self, workdir):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        address = f"--coordinator_address=127.0.0.1:{port}"
        self.workdir = workdir
        self.processes = [
            Training(
                train_command(
                    workdir, *ARGUMENTS, address, "--num_processes=2", f"--process_id={index}"
                ),
                commands.environment(devices=4),
            )
            for index in (0, 1)
        ]

    def wait_for_step(self, step):
        assert self.processes[0].wait_for_text(rf"^step {step}/"), self.processes[0].text

    def strike(self, index, number):
        self.processes[index].process.send_signal(number)

    def end(self, timeout=600):
        return [training.end(timeout) for training in self.processes]

    def text(self, index):
        """What a process said itself."""
        lines = self.processes[index].text.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("[Gloo]"))


def children(process):
    """All processes below one, which live on when it is killed."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, task.read_text().split()):
            found += [child, *children(child)]
    return found


def shared_memory(process):
    """The files in /dev/shm that a process has mapped."""
    return re.findall(r"/dev/shm/\S+", Path(f"/proc/{process}/maps").read_text())


def is_alive(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc and /dev/shm")
def test_two_processes_train_as_one_and_survive_together(tmp_path):
    one, whole, struck = (tmp_path / name for name in ("one", "whole", "struck"))
    single = Training(train_command(one, *ARGUMENTS), commands.environment(devices=8))
    assert single.end() == 0, single.text
    pair = Pair(whole)
    assert pair.end() == [0, 0], pair.text(0) + pair.text(1)
    assert "step" not in pair.text(1)  # Only the first one tells.
    assert_close(whole, one)

    for victim, step in ((1, 2), (0, 8)):
        pair = Pair(struck)
        pair.wait_for_step(step)
        ours = [training.process.pid for training in pair.processes]
        workers = [child for process in ours for child in children(process)]
        segments = {path for process in ours + workers for path in shared_memory(process)}
        assert workers and segments
        pair.strike(victim, signal.SIGKILL)
        survivor = 1 - victim
        assert pair.processes[survivor].end(timeout=60) == 75, pair.text(survivor)
        assert re.search(
            rf"^error: Process {victim} of this run's 2 ended or cannot be reached, and "
            rf"process {survivor} cannot continue: start all of them again; the run resumes from "
            r"its newest checkpoint\.$",
            pair.text(survivor),
            re.MULTILINE,
        ), pair.text(survivor)
        assert "Traceback" not in pair.text(survivor), pair.text(survivor)
        assert pair.processes[victim].end() == -signal.SIGKILL
        commands.wait_until(lambda workers=workers: not any(map(is_alive, workers)))
        commands.wait_until(lambda segments=segments: not any(map(os.path.exists, segments)))

    for asked, step in ((1, 10), (0, 15)):
        resume_at = commands.newest_step(struck)
        pair = Pair(struck)
        assert pair.processes[0].wait_for_text(rf"^Resuming at step {resume_at}:")
        pair.wait_for_step(max(step, resume_at + 1))
        pair.strike(asked, signal.SIGTERM)
        assert pair.end() == [143, 143], pair.text(0) + pair.text(1)
        stopped = [re.search(r"^Stopped.* at step (\d+) with", pair.text(i), re.M) for i in (0, 1)]
        assert stopped[0] and stopped[1] and stopped[0][1] == stopped[1][1]
        assert int(stopped[0][1]) == commands.newest_step(struck)
        assert f"step {stopped[0][1]}/" in pair.text(0).splitlines()[-2]
    pair = Pair(struck)
    assert pair.end() == [0, 0], pair.text(0) + pair.text(1)
    assert f"Resuming at step {stopped[0][1]}:" in pair.text(0)
    commands.assert_same_run(struck, whole, 21)
