"""Runs survive: real training processes, struck at random moments, lose and change nothing.

`make survival` runs the long version (SHIFT_JAX_SURVIVAL=long) and prints what it counted.
"""

import collections
import os
import re
import signal
import time
from random import Random

import pytest

from tests.conftest import SHARED_DATA
from tests.survival import commands
from tests.survival.commands import TINY, Training, train_command

pytestmark = pytest.mark.slow

LONG = os.environ.get("SHIFT_JAX_SURVIVAL") == "long"


class Tally:
    """Counts of what was done to runs."""

    def __init__(self):
        self.blows = collections.Counter()
        self.restarts = self.lines = 0

    def __str__(self):
        counts = [f"{n} {name} while {doing}" for (name, doing), n in sorted(self.blows.items())]
        return "\n".join(
            [*counts, f"{self.restarts} resumed starts, {self.lines} lines of history compared"]
        )

    def total(self, name, *doing):
        return sum(
            n for (of, when), n in self.blows.items() if of == name and (not doing or when in doing)
        )


def endure(workdir, arguments, blows, tally):
    """Trains to the end through the blows, checking each restart."""
    resume_at = 0
    for blow in [*blows, None]:
        # A start that is to be hit while it compiles shall really compile.
        cache = (
            {"JAX_ENABLE_COMPILATION_CACHE": "false"} if blow and blow.moment == "compiling" else {}
        )
        training = Training(train_command(workdir, *arguments), commands.environment(**cache))
        struck = blow is not None and commands.strike(training, workdir, blow)
        status = training.end()
        text = training.text
        opening = re.search(r"^Training from the start|^Resuming at step (\d+)", text, re.MULTILINE)
        if opening:
            assert int(opening[1] or 0) == resume_at, text
            tally.restarts += resume_at > 0
        name = signal.Signals(-status if status < 0 else status - 128).name if status else "end"
        if status == 0:
            # Struck too late, when all was done.
            return
        assert struck, text
        if blow.signal == signal.SIGKILL:
            assert name == "SIGKILL", text
            tally.blows[name, commands.found_in(workdir, text)] += 1
        else:
            assert status == 143, (status, text)
            stopped = re.search(r"^Stopped by SIGTERM at step (\d+) ", text, re.MULTILINE)
            steps = re.findall(commands.IN_TRAINING, text, re.MULTILINE)
            assert stopped and "Traceback" not in text, text
            assert int(stopped[1]) == commands.newest_step(workdir), text
            assert int(stopped[1]) >= max(map(int, steps), default=0), text
            tally.blows[name, blow.moment] += 1
        assert "Traceback" not in text and "error:" not in text, text
        resume_at = commands.newest_step(workdir)
    raise AssertionError("the last start was not to be struck")


def run_whole(workdir, arguments):
    training = Training(train_command(workdir, *arguments), commands.environment())
    assert training.end() == 0, training.text
    return commands.newest_step(workdir)


def test_a_run_survives_kills_and_stops(tmp_path):
    tally = Tally()
    whole, struck = tmp_path / "whole", tmp_path / "struck"
    arguments = (*TINY, "--config.epochs=4.0")
    last_step = run_whole(whole, arguments)
    blows = commands.plan(Random(7), kills=3, stops=2)
    endure(struck, arguments, blows, tally)
    tally.lines += commands.assert_same_run(struck, whole, last_step)
    assert (tally.total("SIGKILL"), tally.total("SIGTERM")) == (3, 2), str(tally)
    assert tally.restarts >= 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_run_spares_its_data_workers(tmp_path, number):
    """As schedulers and terminals send it: the run needs its workers until it has saved."""
    arguments = (*TINY, "--config.epochs=40.0", "--config.data.num_workers=1")
    training = Training(train_command(tmp_path, *arguments), commands.environment())
    assert training.wait_for_text(commands.IN_TRAINING), training.text
    os.killpg(training.process.pid, number)
    assert training.end() == 128 + number, training.text
    stopped = re.search(r"^Stopped by SIG\w+ at step (\d+) ", training.text, re.MULTILINE)
    assert stopped and int(stopped[1]) == commands.newest_step(tmp_path), training.text


@pytest.mark.skipif(not LONG, reason="takes a quarter of an hour: make survival")
def test_runs_survive_dozens_of_kills_and_stops(tmp_path, capsys):
    begun = time.monotonic()
    tally = Tally()
    runs = [(TINY, 10, 4)] * 5
    data = SHARED_DATA / "tfds"
    if data.exists():
        cifar = (f"{TINY[0]}:cifar100", f"--config.data.data_dir={data}")
        runs.append((cifar, 4, 2))
    wholes = {}
    numbers = range(len(runs) + 5)
    for number in numbers:
        # More runs where blows came too late.
        arguments, kills, stops = runs[number] if number < len(runs) else runs[0]
        missing = max(0, 50 - tally.total("SIGKILL")), max(0, 20 - tally.total("SIGTERM"))
        if number >= len(runs) and not any(missing):
            break
        if arguments not in wholes:
            whole = tmp_path / f"whole-{number}"
            wholes[arguments] = whole, run_whole(whole, arguments)
        whole, last_step = wholes[arguments]
        workdir = tmp_path / f"struck-{number}"
        endure(workdir, arguments, commands.plan(Random(number), kills, stops), tally)
        tally.lines += commands.assert_same_run(workdir, whole, last_step)
        with capsys.disabled():
            print(f"\nrun {number}, {time.monotonic() - begun:.0f} s\n{tally}", flush=True)
    assert tally.total("SIGKILL") >= 50 and tally.total("SIGTERM") >= 20
    assert tally.total("SIGKILL", "writing a checkpoint") >= 5
    assert tally.total("SIGKILL", "evaluating") >= 5
    assert tally.total("SIGTERM", "compiling") >= 3 and tally.total("SIGTERM", "evaluating") >= 3
