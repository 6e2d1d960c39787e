"""What storage does to runs: full and read-only disks, files cut off, two runs in one folder."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
from functools import cache

import jax
import jax.numpy as jnp
import pytest

from shift_jax.errors import InputError
from shift_jax.training.runs.checkpoint_files import read_manifest
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.runs.history import History, read_history
from shift_jax.training.runs.workdir import claim_workdir, workdir_lock
from shift_jax.training.train import train
from tests.conftest import REPOSITORY
from tests.survival import commands
from tests.survival.commands import TINY, Training, train_command

ROOM = "make room, fix it or choose another place; the same command continues from what is saved."


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


# A folder whose last files a crash has cut off, emptied or left half-written.


def test_a_crash_while_metrics_are_added_leaves_the_old_or_the_new_ones(tmp_path, monkeypatch):
    state = {"params": {"w": jnp.arange(3.0)}}
    leftovers = []

    def crash(temporary, path):
        leftovers.append(temporary)
        raise KeyboardInterrupt

    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(7, state, config={})
        with monkeypatch.context() as patch:
            # The last moment: all is written, and the new file does not have its name yet.
            patch.setattr(os, "replace", crash)
            with pytest.raises(KeyboardInterrupt):
                checkpoints.add_metrics(7, {"top1": 0.5})
    (leftover,) = leftovers
    manifest = tmp_path / "checkpoints" / "7" / "manifest"
    assert leftover.parent == manifest and not leftover.exists()
    # A kill, unlike an exception, leaves it there.
    leftover.write_text("{cut off")
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert not checkpoints.has_metrics(7)
        assert checkpoints.best_step is None
        template = jax.eval_shape(lambda: state)
        sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        template = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), template
        )
        assert checkpoints.restore_latest(template)[1] == 7
        checkpoints.add_metrics(7, {"top1": 0.5})
        assert checkpoints.has_metrics(7)
        assert checkpoints.best_step == 7
    assert not leftover.exists()


@pytest.mark.parametrize("cut", [1, 20])
def test_a_history_cut_off_by_a_crash_goes_on_whole(tmp_path, cut):
    history = History(tmp_path, 0)
    for step in (1, 2, 3):
        history.add(step, "train", loss=0.5)
    history.flush()
    path = tmp_path / "history.jsonl"
    whole = path.read_text()
    path.write_text(whole[:-cut])
    history = History(tmp_path, 2)
    history.add(3, "train", loss=0.5)
    history.flush()
    assert path.read_text() == whole


def test_an_evaluation_is_dropped_where_it_comes_again(tmp_path):
    history = History(tmp_path, 0)
    history.add(7, "train", loss=0.5)
    history.add(7, "eval", split="test", top1=0.5)
    history.flush()
    History(tmp_path, 7)
    assert [r["kind"] for r in read_history(tmp_path)] == ["train", "eval"]
    History(tmp_path, 7, evaluate_again=True)
    assert [r["kind"] for r in read_history(tmp_path)] == ["train"]


# A disk that is full, told by errors that are made here.


@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        (ValueError("RESOURCE_EXHAUSTED: Error writing x: y [os_error_code='28']"), errno.ENOSPC),
        (OSError(errno.EROFS, os.strerror(errno.EROFS)), errno.EROFS),
    ],
    ids=["TensorStore's", "Orbax's own"],
)
def test_a_failed_save_raises_the_systems_error(tmp_path, monkeypatch, raised, caught):
    state = {"params": {"w": jnp.arange(3.0)}}
    path = "orbax.checkpoint._src.path.atomicity.AtomicRenameTemporaryPath.finalize"

    async def finalize(self):
        raise raised

    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, state, config={})
    checkpoints.wait()
    with monkeypatch.context() as patch:
        patch.setattr(path, finalize)
        checkpoints.save(2, state, config={})
        with pytest.raises(OSError, match=re.escape(os.strerror(caught))) as error:
            checkpoints.wait()
    assert error.value.errno == caught and error.value.filename == str(tmp_path / "checkpoints")
    assert checkpoints.steps() == [1]
    checkpoints.save(2, state, config={})
    checkpoints.close()
    assert checkpoints.steps() == [1, 2]


def test_an_error_of_the_history_names_the_file(tmp_path, monkeypatch):
    history = History(tmp_path, 0)
    history.add(1, "train", loss=0.5)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", raising(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full") as error:
            history.flush()
    assert error.value.filename == str(tmp_path / "history.jsonl")


@pytest.mark.parametrize(
    ("number", "kind"), [(errno.ENOSPC, OSError), (errno.EROFS, InputError)], ids=["full", "ro"]
)
def test_a_new_workdir_that_cannot_be_written(tmp_path, monkeypatch, number, kind):
    """A full disk is not the caller's mistake: it has another exit status."""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", raising(OSError(number, os.strerror(number))))
        with pytest.raises(kind, match=os.strerror(number)):
            claim_workdir(tmp_path / "run", {"seed": 0})
    claim_workdir(tmp_path / "run", {"seed": 0})
    assert json.loads((tmp_path / "run" / "config.json").read_text()) == {"seed": 0}


def test_a_workdir_has_one_owner_at_a_time(tmp_path):
    refused = rf"is in use by process {os.getpid()} on \S+: wait"
    with workdir_lock(tmp_path), pytest.raises(InputError, match=refused), workdir_lock(tmp_path):
        pass
    with workdir_lock(tmp_path):
        pass


@pytest.mark.parametrize(
    "moment",
    [
        "shift_jax.training.runs.checkpoints.Checkpoints.add_metrics",
        pytest.param("shift_jax.training.train.collect", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_dies_in_an_evaluation_evaluates_again(
    tiny_config, tmp_path, monkeypatch, moment
):
    one = jax.devices()[:1]
    tiny_config.epochs = 1.0
    with monkeypatch.context() as patch:
        patch.setattr(moment, raising(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            train(tiny_config, tmp_path, devices=one)
    assert read_manifest(tmp_path / "checkpoints" / "7")["metrics"] == {}
    metrics = train(tiny_config, tmp_path, devices=one)
    assert read_manifest(tmp_path / "checkpoints" / "7")["metrics"] == metrics
    kinds = [(r["step"], r["kind"]) for r in read_history(tmp_path)]
    assert kinds == [*((step, "train") for step in range(1, 8)), (7, "eval")]


# Disks that are full or read-only: small ones, mounted where only the run sees them.

ARGUMENTS = (
    *TINY,
    "--config.epochs=8.0",
    "--config.eval_every_epochs=8.0",
    "--config.eval_batch_size=64",
)


@cache
def can_mount():
    command = ["unshare", "-rm", "mount", "-t", "tmpfs", "disk", "/mnt"]
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(command, capture_output=True).returncode
    )


class Script:
    """Commands in one shell that has its own mounts; a disk is at `disk`."""

    def __init__(self, folder):
        self.folder = folder
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.lines = []

    def mount(self, options):
        verb = "remount," if self.lines else ""
        self.lines.append(f"mount -t tmpfs -o {verb}{options} disk {self.disk}")

    def run(self, name, *command):
        output = self.folder / name
        quoted = " ".join(f"'{part}'" for part in command)
        self.lines.append(f"{quoted} > {output}.out 2> {output}.err; echo $? > {output}.status")

    def copy(self, name):
        self.lines.append(f"cp -r {self.disk}/run {self.folder / name}")

    def execute(self):
        subprocess.run(
            ["unshare", "-rm", "sh", "-c", "\n".join(self.lines)],
            cwd=REPOSITORY,
            env=commands.environment(),
            check=True,
            timeout=600,
        )

    def result(self, name):
        """(exit status, stderr) of what was run."""
        status = int((self.folder / f"{name}.status").read_text())
        return status, (self.folder / f"{name}.err").read_text()


def errors_in(text):
    assert "Traceback" not in text, text
    return [
        line for line in text.splitlines() if not re.match("step |Training from|Resuming", line)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("whole") / "run"
    training = Training(
        train_command(workdir, *ARGUMENTS, "--config.checkpoint_every_steps=20"),
        commands.environment(),
    )
    assert training.end() == 0, training.text
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize(
    ("room", "fill", "every", "where", "resumes"),
    [
        ("4k", 4096, 20, "config.json", "Training from the start"),
        ("12k", 0, 0, "history.jsonl", "Training from the start"),
        ("300k", 0, 20, "checkpoints", "Resuming at step 20"),
    ],
)
def test_a_full_disk_costs_nothing_that_was_saved(
    tmp_path, whole, room, fill, every, where, resumes
):
    if not can_mount():
        pytest.skip("no disk can be mounted here (unshare -rm)")
    script = Script(tmp_path)
    workdir = script.disk / "run"
    command = train_command(workdir, *ARGUMENTS, f"--config.checkpoint_every_steps={every}")
    script.mount(f"size={room}")
    script.run("fill", "head", "-c", str(fill), "/dev/zero")
    script.lines.append(f"cp {tmp_path}/fill.out {script.disk}/filler")
    script.run("full", *command)
    script.mount("ro")
    script.run("read-only", *command)
    script.mount("rw,size=8m")
    script.run("room", *command)
    script.copy("struck")
    script.execute()

    status, text = script.result("full")
    expected = f"error: {workdir / where} cannot be used (No space left on device): {ROOM}"
    assert errors_in(text) == [expected] and status == 1
    status, text = script.result("read-only")
    expected = f"The workdir {workdir} cannot be written (Read-only file system): choose another."
    assert errors_in(text) == [f"error: {expected}"] and status == 2
    status, text = script.result("room")
    assert status == 0 and errors_in(text) == [] and text.startswith(resumes), text
    commands.assert_same_run(tmp_path / "struck", whole, 56)


@pytest.mark.slow
def test_a_second_run_on_one_workdir_is_refused_and_the_first_not_disturbed(tmp_path, whole):
    command = train_command(tmp_path, *ARGUMENTS)
    first = Training(command, commands.environment())
    assert first.wait_for_text(r"^step 2/")
    # It shall still be there when the second one comes.
    first.process.send_signal(signal.SIGSTOP)
    second = Training(command, commands.environment())
    assert second.end() == 2
    assert re.fullmatch(
        rf"error: The workdir {tmp_path} is in use by process {first.process.pid} on \S+: wait "
        r"until that run ends, stop it, or choose another --workdir\.\n",
        second.text,
    )
    first.process.send_signal(signal.SIGCONT)
    assert first.end() == 0, first.text
    commands.assert_same_run(tmp_path, whole, 56)
