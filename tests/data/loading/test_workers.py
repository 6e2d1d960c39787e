"""Worker processes change no image, touch no accelerator and end with the iterator."""

import dataclasses
import multiprocessing
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from shift_jax.data import eval_batches, load_source, train_batches
from tests.data.loading.numbered import KEEP, TRANSFORM, Numbered, assert_same, labels, take


def test_workers_change_no_image_and_end_with_the_iterator():
    source = load_source("digits", "train")
    kwargs = {"batch_size": 500, "seed": 3, "start_step": 1}
    batches = train_batches(source, TRANSFORM, num_workers=2, **kwargs)
    got = [next(batches) for _ in range(7)]
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    assert multiprocessing.active_children() == []
    assert_same(got, take(7, source, **kwargs))


def test_workers_end_when_the_iterator_is_dropped():
    batches = train_batches(Numbered(10), KEEP, batch_size=4, seed=0, num_workers=1)
    next(batches)
    assert len(multiprocessing.active_children()) == 1
    del batches
    assert multiprocessing.active_children() == []


@dataclasses.dataclass(frozen=True)
class Spy(Numbered):
    """Labels tell whether reading happened in a process with an accelerator backend."""

    def __getitem__(self, index):
        import jax._src.xla_bridge

        in_use = jax._src.xla_bridge.backends_are_initialized()
        return super().__getitem__(index) | {"label": np.int32(in_use)}


def test_workers_touch_no_accelerator():
    import jax

    jax.devices()
    assert set(sum(labels(take(3, Spy(10))), [])) == {1}
    assert set(sum(labels(take(3, Spy(10), num_workers=1)), [])) == {0}


SCRIPT = """
    import zlib

    from shift_jax.data import eval_batches, load_source, pad_crop_flip, train_batches

    def checksum(num_workers):
        batches = train_batches(
            load_source("digits", "test"),
            pad_crop_flip(1, True),
            batch_size=100,
            seed=0,
            num_workers=num_workers,
        )
        return [zlib.crc32(next(batches)["image"].tobytes()) for _ in range(5)]
"""


def run_script(tmp_path, end):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT) + textwrap.dedent(end))
    return subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=100)


@pytest.mark.slow
def test_workers_serve_a_plain_script_that_just_ends(tmp_path):
    end = """
        if __name__ == "__main__":
            print(checksum(2) == checksum(0))
            left_open = eval_batches(load_source("digits", "test"), batch_size=9, num_workers=2)
            next(left_open)
    """
    run = run_script(tmp_path, end)
    assert (run.returncode, run.stdout) == (0, "True\n"), run.stderr
    assert "Traceback" not in run.stderr and "leaked" not in run.stderr


def test_eval_workers_change_nothing():
    kwargs = {"source": load_source("digits", "test"), "batch_size": 64}
    assert_same(list(eval_batches(num_workers=2, **kwargs)), list(eval_batches(**kwargs)))
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_an_unguarded_script_is_told_why_its_workers_fail(tmp_path):
    # A list will do: the workers fail before they see it.
    end = "next(eval_batches([{'label': 0}], batch_size=9, num_workers=2))"
    run = run_script(tmp_path, end)
    assert run.returncode != 0
    assert (
        "InputError: A worker process imported the script, which asked for workers again; put the "
        'calls of the script under if __name__ == "__main__": or set num_workers to 0.'
    ) in run.stderr
