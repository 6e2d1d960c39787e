"""Training as a process of its own: started, watched, struck at a chosen moment, compared."""

import contextlib
import dataclasses
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from shift_jax.training.runs.checkpoint_files import read_manifest
from shift_jax.training.runs.history import read_history
from tests.conftest import REPOSITORY
from tests.survival.tiny import STEPS_PER_EPOCH

TINY = ("--config=tests/survival/tiny.py",)
# How often the folder is looked at while nothing is printed.
_TICK = 0.001


def environment(devices: int = 1, **changes: str) -> dict[str, str]:
    """The environment of a training process with so many simulated devices."""
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        **changes,
    }


def train_command(workdir: Path, *arguments: str) -> list[str]:
    return [sys.executable, "train.py", *arguments, f"--workdir={workdir}"]


def wait_until(condition, timeout: float = 60) -> None:
    """Looks again and again until `condition()`."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s in vain"
        time.sleep(_TICK)


class Training:
    """A running train.py whose stderr is read while it comes."""

    def __init__(self, command: list[str], env: dict[str, str]):
        self.process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=env,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._stderr = self.process.stderr.fileno()
        self._text = b""
        self._ended = False

    @property
    def text(self) -> str:
        """All that was printed so far."""
        return self._text.decode(errors="replace")

    def wait_for(self, condition, timeout: float = 600) -> bool:
        """Reads until `condition()`; False if the process ended before."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self._ended:
                return False
            assert time.monotonic() < deadline, f"waited {timeout} s in vain:\n{self.text}"
            self._read(_TICK)
        return True

    def wait_for_text(self, pattern: str, timeout: float = 600) -> bool:
        """Reads until a line matches; False if the process ended before."""
        return self.wait_for(lambda: re.search(pattern, self.text, re.MULTILINE), timeout)

    def go_on_for(self, seconds: float) -> None:
        """Reads for a while, or until the process ends."""
        until = time.monotonic() + seconds
        self.wait_for(lambda: time.monotonic() >= until)

    def end(self, timeout: float = 600) -> int:
        """Waits for the process and its data workers, and returns the exit status.

        The workers have its stderr, which ends with the last of them. After the timeout all are
        killed, and the test fails.
        """
        try:
            self.wait_for(lambda: False, timeout)
            return self.process.wait(timeout)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process.stderr.close()

    def _read(self, timeout: float) -> None:
        if select.select([self._stderr], [], [], timeout)[0]:
            more = os.read(self._stderr, 2**16)
            self._text += more
            self._ended = not more


OPENING = r"^(Training from the start|Resuming at step \d+)"
IN_TRAINING = r"^step (\d+)/\d+ \| epoch [\d.]+ \| loss"


@dataclasses.dataclass(frozen=True)
class Blow:
    """A signal and its moment.

    Attributes:
      signal: number of the signal.
      moment: "any time", "compiling", "stepping", "writing" or "evaluating".
      delay: seconds after the moment has begun; for "any time", after the start.
      lines: of steps before it, for "stepping".
    """

    signal: int
    moment: str
    delay: float = 0.0
    lines: int = 0


def strike(training: Training, workdir: Path, blow: Blow) -> bool:
    """Sends the signal at its moment; False if the run ended before."""
    checkpoints = workdir / "checkpoints"

    def being_written() -> bool:
        return any(checkpoints.glob("*.orbax-checkpoint-tmp*"))

    def evaluating() -> bool:
        steps = re.findall(IN_TRAINING, training.text, re.MULTILINE)
        steps += re.findall(r"^Resuming at step (\d+)", training.text, re.MULTILINE)
        step = max(map(int, steps), default=0)
        if not step or step % STEPS_PER_EPOCH or not (checkpoints / str(step)).exists():
            return False
        return not read_manifest(checkpoints / str(step))["metrics"]

    if blow.moment != "any time" and not training.wait_for_text(OPENING):
        return False
    if blow.moment == "stepping":
        came = training.wait_for(
            lambda: len(re.findall(IN_TRAINING, training.text, re.MULTILINE)) >= blow.lines
        )
    elif blow.moment == "writing":
        came = training.wait_for(being_written)
    elif blow.moment == "evaluating":
        came = training.wait_for(evaluating)
    else:
        came = True
    if came:
        training.go_on_for(blow.delay)
        training.process.send_signal(blow.signal)
    return came


def found_in(workdir: Path, text: str) -> str:
    """What a process was doing when it was killed, by what it left and printed."""
    checkpoints = workdir / "checkpoints"
    entries = [path.name for path in checkpoints.iterdir()] if checkpoints.exists() else []
    if not re.search(OPENING, text, re.MULTILINE):
        return "starting or restoring"
    if any("orbax-checkpoint-tmp" in name for name in entries):
        return "writing a checkpoint"
    newest = max((int(name) for name in entries if name.isdigit()), default=0)
    if newest and newest % STEPS_PER_EPOCH == 0:
        if any((checkpoints / str(newest) / "manifest").glob(".partial*.metadata")):
            return "completing a checkpoint"
        if not read_manifest(checkpoints / str(newest))["metrics"]:
            return "evaluating"
    if not re.search(IN_TRAINING, text, re.MULTILINE):
        return "compiling"
    return "training"


def newest_step(workdir: Path) -> int:
    """The newest complete checkpoint, 0 without any."""
    names = [path.name for path in (workdir / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdigit()), default=0)


def arrays(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint by name: parameters, BatchNorm, optimizer, step and PRNG key."""
    folder = workdir / "checkpoints" / str(step)
    names = read_manifest(folder)["tensors"]
    as_numpy = ocp.RestoreArgs(restore_type=np.ndarray)
    wanted = unflatten_dict(dict.fromkeys(names, as_numpy), sep="/")
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.restore(
            folder / "state", args=ocp.args.PyTreeRestore(wanted, restore_args=wanted)
        )
    leaves = flatten_dict(tree, sep="/")
    assert leaves.keys() == names.keys()
    return leaves


def assert_same_run(workdir: Path, whole: Path, last_step: int) -> int:
    """The two runs' states and histories are the same bit for bit; returns the lines compared."""
    theirs, ours = arrays(whole, last_step), arrays(workdir, last_step)
    kinds = {name.split("/")[0] for name in theirs}
    assert {"params", "batch_stats", "opt_state", "rng", "step"} <= kinds
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name].dtype == expected.dtype and ours[name].shape == expected.shape, name
        assert ours[name].tobytes() == expected.tobytes(), name
    # Repeated, lost or reordered steps would differ as well.
    history = read_history(whole)
    assert [r["step"] for r in history if r["kind"] == "train"] == list(range(1, last_step + 1))
    assert read_history(workdir) == history
    lines = (workdir / "history.jsonl").read_text()
    assert lines == (whole / "history.jsonl").read_text()
    assert all(json.loads(line) for line in lines.splitlines())
    return len(history)


MOMENTS = {
    signal.SIGKILL: ("writing", "evaluating", "any time", "writing", "evaluating", "stepping"),
    signal.SIGTERM: ("evaluating", "compiling", "stepping", "writing"),
}


def plan(random: Random, kills: int, stops: int) -> list[Blow]:
    """So many SIGKILLs and SIGTERMs in random order, spread over all moments."""
    numbers = [signal.SIGKILL] * kills + [signal.SIGTERM] * stops
    blows = []
    for index, number in enumerate(numbers):
        moment = MOMENTS[number][index % len(MOMENTS[number])]
        # About as long as what it is to fall into.
        longest = {"any time": 6.0, "compiling": 0.5, "writing": 0.05, "evaluating": 0.05}
        blows.append(
            Blow(
                signal=number,
                moment=moment,
                delay=random.uniform(0, longest.get(moment, 0.05)),
                lines=random.randrange(1, 2 * STEPS_PER_EPOCH),
            )
        )
    random.shuffle(blows)
    return blows
