"""Workers end with the process that started them, however that ends."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import time

import pytest

SCRIPT = """
    import multiprocessing
    import sys
    from multiprocessing import shared_memory

    # Workers import this too: their segments have a name of this test's.
    shared_memory._SHM_NAME_PREFIX = "/" + sys.argv[1]

    from shift_jax.data import load_source, pad_crop_flip, train_batches

    if __name__ == "__main__":
        batches = train_batches(
            load_source("digits", "train"),
            pad_crop_flip(1, True),
            batch_size=500,
            seed=0,
            num_workers=2,
        )
        for _ in range(4):
            next(batches)
        print(*(child.pid for child in multiprocessing.active_children()), flush=True)
        while True:
            next(batches)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs /dev/shm to look at")
def test_workers_and_their_memory_go_when_the_trainer_is_killed(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT))
    # Short: the name has 14 characters in all.
    prefix = f"sj{os.getpid() % 10_000}_"
    process = subprocess.Popen(
        [sys.executable, path, prefix], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    workers = []
    try:
        workers += [int(pid) for pid in process.stdout.readline().split()]
        assert len(workers) == 2 and all(map(_runs, workers))
        _until(lambda: _segments(prefix), "a shared segment", seconds=20)
        process.send_signal(signal.SIGKILL)
        process.wait()
        _until(lambda: not any(map(_runs, workers)), "the workers' end", seconds=10)
        _until(lambda: not _segments(prefix), "the segments' end", seconds=10)
    finally:
        process.kill()
        for pid in filter(_runs, workers):
            os.kill(pid, signal.SIGKILL)
        # Last: workers that live on would keep the pipes open.
        process.communicate()


def _runs(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def _segments(prefix):
    return [name for name in os.listdir("/dev/shm") if name.startswith(prefix)]


def _until(condition, what, seconds):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            pytest.fail(f"waited in vain for {what}")
        os.sched_yield()
