import numpy as np
import pytest

from shift_jax.data import eval_batches, steps_per_epoch, train_batches
from shift_jax.errors import InputError
from tests.data.loading.numbered import KEEP, Numbered, assert_same, labels, take


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
