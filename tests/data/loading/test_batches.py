import dataclasses
import itertools
import multiprocessing
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from shift_jax.data import eval_batches, load_source, pad_crop_flip, steps_per_epoch, train_batches
from shift_jax.errors import InputError

TRANSFORM = pad_crop_flip(1, True)
KEEP = pad_crop_flip(0, False)


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Example i is a 4x4 image of the value i + 1, labeled i."""

    length: int
    num_classes: int = 256
    class_names: None = None
    image_shape: tuple[int, int, int] = (4, 4, 1)

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        return {"image": np.full((4, 4, 1), index + 1, np.uint8), "label": np.int32(index)}


def take(count, source=None, transform=TRANSFORM, **kwargs):
    source = Numbered(10) if source is None else source
    kwargs = {"batch_size": 4, "seed": 0} | kwargs
    return list(itertools.islice(train_batches(source, transform, **kwargs), count))


def labels(batches):
    return [batch["label"].tolist() for batch in batches]


def assert_same(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])
            assert batch[key].dtype == other[key].dtype


def joined(per_process):
    return [
        {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
        for parts in zip(*per_process, strict=True)
    ]


# Steps


@pytest.mark.parametrize(
    ("num_examples", "batch_size", "drop_remainder", "steps"),
    [(10, 4, False, 3), (10, 4, True, 2), (8, 4, False, 2), (8, 4, True, 2), (3, 4, False, 1)],
)
def test_steps_per_epoch(num_examples, batch_size, drop_remainder, steps):
    assert steps_per_epoch(num_examples, batch_size, drop_remainder) == steps


# Training


def test_batches_are_plain_arrays_of_the_documented_types():
    for num_workers in (0, 1):
        batch = take(1, num_workers=num_workers)[0]
        assert type(batch["image"]) is np.ndarray and type(batch["label"]) is np.ndarray
        assert batch["image"].dtype == np.uint8 and batch["image"].shape == (4, 4, 4, 1)
        assert batch["label"].dtype == np.int32 and batch["label"].shape == (4,)


@pytest.mark.parametrize("drop_remainder", [False, True])
def test_a_batch_depends_on_seed_and_step_only(drop_remainder):
    whole = take(9, drop_remainder=drop_remainder)
    for step in range(9):
        assert_same(take(9 - step, start_step=step, drop_remainder=drop_remainder), whole[step:])


def test_a_far_step_is_reached_at_once_and_belongs_to_its_epoch():
    epoch = 10**12
    assert sorted(sum(labels(take(3, start_step=3 * epoch)), [])) == list(range(10))


def test_every_epoch_holds_each_example_once_and_keeps_the_last_batch():
    batches = take(9)
    assert [len(batch["label"]) for batch in batches] == [4, 4, 2] * 3
    for epoch in range(3):
        assert sorted(sum(labels(batches[3 * epoch : 3 * epoch + 3]), [])) == list(range(10))


def test_drop_remainder_keeps_full_batches_of_distinct_examples():
    batches = take(8, drop_remainder=True)
    assert [len(batch["label"]) for batch in batches] == [4] * 8
    for epoch in range(4):
        assert len(set(sum(labels(batches[2 * epoch : 2 * epoch + 2]), []))) == 8
    # What is dropped differs between epochs, so no example is lost for good.
    assert set(sum(labels(batches), [])) == set(range(10))


def test_image_and_label_stay_together():
    for batch in take(6, transform=KEEP):
        np.testing.assert_array_equal(batch["image"][:, 0, 0, 0], batch["label"] + 1)


def test_epochs_differ_in_order_and_in_crops():
    epochs = [take(1, Numbered(64), batch_size=64, start_step=step)[0] for step in range(2)]
    assert epochs[0]["label"].tolist() != epochs[1]["label"].tolist()
    first, second = (epoch["image"][np.argsort(epoch["label"])] for epoch in epochs)
    moved = (first != second).any(axis=(1, 2, 3))
    assert moved.mean() > 0.5


def test_examples_of_a_batch_get_different_crops():
    corners = take(1, Numbered(64), batch_size=64)[0]["image"] != 0
    assert len({corner.tobytes() for corner in corners}) == 9


def test_seeds_differ():
    assert labels(take(3, seed=0)) != labels(take(3, seed=1))
    # Not even shifted by an epoch, which is what a seed + epoch scheme would give.
    assert labels(take(3, seed=0, start_step=3)) != labels(take(3, seed=1))


@pytest.mark.parametrize("drop_remainder", [False, True])
@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_joined_are_the_single_process(process_count, drop_remainder):
    kwargs = {"source": Numbered(20), "batch_size": 8, "drop_remainder": drop_remainder}
    per_process = [
        take(7, process_index=index, process_count=process_count, **kwargs)
        for index in range(process_count)
    ]
    assert_same(joined(per_process), take(7, **kwargs))


def test_processes_resume_like_the_single_process():
    kwargs = {"source": Numbered(20), "batch_size": 8, "start_step": 5}
    per_process = [take(4, process_index=index, process_count=2, **kwargs) for index in range(2)]
    assert_same(joined(per_process), take(4, **kwargs))


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


# Evaluation


@pytest.mark.parametrize(("length", "sizes"), [(10, [4, 4, 2]), (8, [4, 4]), (3, [3])])
def test_eval_shows_every_example_once_in_order(length, sizes):
    batches = list(eval_batches(Numbered(length), batch_size=4))
    assert [batch["mask"].sum() for batch in batches] == sizes
    for batch in batches:
        assert batch["image"].shape == (4, 4, 4, 1) and batch["image"].dtype == np.uint8
        assert batch["label"].shape == (4,) and batch["label"].dtype == np.int32
        assert batch["mask"].shape == (4,) and batch["mask"].dtype == np.bool_
        assert not batch["image"][~batch["mask"]].any() and not batch["label"][~batch["mask"]].any()
        np.testing.assert_array_equal(
            batch["image"][batch["mask"], 0, 0, 0], batch["label"][batch["mask"]] + 1
        )
    assert sum((batch["label"][batch["mask"]].tolist() for batch in batches), []) == list(
        range(length)
    )


@pytest.mark.parametrize("process_count", [2, 4])
def test_eval_processes_joined_are_the_single_process(process_count):
    # 17 examples leave some processes no real row in the last batch.
    kwargs = {"source": Numbered(17), "batch_size": 8}
    per_process = [
        list(eval_batches(process_index=index, process_count=process_count, **kwargs))
        for index in range(process_count)
    ]
    assert_same(joined(per_process), list(eval_batches(**kwargs)))


def test_eval_workers_change_nothing():
    kwargs = {"source": load_source("digits", "test"), "batch_size": 64}
    assert_same(list(eval_batches(num_workers=2, **kwargs)), list(eval_batches(**kwargs)))
    assert multiprocessing.active_children() == []


# Errors


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        (
            {"source": Numbered(0)},
            r"The dataset has 0 examples; it needs at least 1\.",
        ),
        ({"batch_size": 0}, r"batch_size is 0; it must be at least 1\."),
        (
            {"batch_size": 11, "drop_remainder": True},
            r"batch_size 11 is larger than the dataset \(10 examples\), so drop_remainder leaves "
            r"no batch; choose a smaller batch_size or keep the remainder\.",
        ),
        (
            {"batch_size": 5, "process_count": 2},
            r"A batch of 5 examples does not divide evenly among 2 processes; choose a batch_size "
            r"divisible by their number, and drop_remainder if only the last batch of an "
            r"epoch does not divide\.",
        ),
        (
            {"source": Numbered(11), "process_count": 2},
            r"A batch of 3 examples does not divide evenly among 2 processes; .*",
        ),
        (
            {"process_index": 2, "process_count": 2},
            r"process_index is 2; with process_count 2 it must be in 0\.\.1\.",
        ),
        ({"seed": -1}, r"seed is -1; it must be in 0 \.\. 2\*\*32 - 1\."),
        ({"seed": 2**32}, r"seed is 4294967296; it must be in .*"),
        ({"start_step": -1}, r"start_step is -1; it must be 0 or more\."),
        ({"num_workers": -1}, r"num_workers is -1; it must be 0 or more\."),
    ],
)
def test_train_refuses_at_the_call(kwargs, sentence):
    kwargs = {"source": Numbered(10), "batch_size": 4, "seed": 0} | kwargs
    with pytest.raises(InputError, match=f"^{sentence}$"):
        train_batches(kwargs.pop("source"), KEEP, **kwargs)


def test_drop_remainder_makes_an_odd_last_batch_no_problem():
    assert len(take(1, Numbered(11), drop_remainder=True, process_count=2)[0]["label"]) == 2


def test_eval_refuses_at_the_call():
    with pytest.raises(InputError, match="A batch of 5 examples does not divide evenly among 2"):
        eval_batches(Numbered(10), batch_size=5, process_count=2)
    with pytest.raises(InputError, match="The dataset has 0 examples"):
        eval_batches(Numbered(0), batch_size=5)


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
