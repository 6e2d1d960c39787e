import itertools

import numpy as np
import pytest

from shift_jax.data import eval_batches, load_source, pad_crop_flip, train_batches
from shift_jax.errors import InputError

KEEP = pad_crop_flip(0, False)


@pytest.fixture(scope="module")
def source():
    return load_source("synthetic", "train", image_size=8)


def take(source, count, batch_size=64, seed=0, **kwargs):
    batches = train_batches(source, KEEP, batch_size=batch_size, seed=seed, **kwargs)
    return list(itertools.islice(batches, count))


def test_it_has_the_numbers_of_imagenet(source):
    assert len(source) == 1_281_167 and source.num_classes == 1000
    assert load_source("synthetic", "train").image_shape == (224, 224, 3)
    assert source[5]["image"].shape == (8, 8, 3) and source[5]["image"].dtype == np.uint8
    assert len(load_source("synthetic", "validation", image_size=8)) == 50_000
    assert len(load_source("synthetic", "train[:12]")) == 12
    assert len(load_source("synthetic", "test[:999999999]")) == 50_000
    for split in ("tset", "tset[:3]"):
        with pytest.raises(InputError, match="synthetic has no split 'tset.*'; .* mean 'test'"):
            load_source("synthetic", split)
    with pytest.raises(InputError, match="holds no examples"):
        load_source("synthetic", "train[:0]")


def test_a_batch_depends_on_seed_and_step_only(source):
    whole = take(source, 9)
    assert whole[0]["image"].shape == (64, 8, 8, 3) and whole[0]["image"].dtype == np.uint8
    assert whole[0]["label"].dtype == np.int32 and set(whole[0]) == {"image", "label"}
    for step in range(9):
        batch = take(source, 1, start_step=step)[0]
        np.testing.assert_array_equal(batch["image"], whole[step]["image"])
        np.testing.assert_array_equal(batch["label"], whole[step]["label"])
    assert (whole[0]["image"] != whole[1]["image"]).any()
    assert (take(source, 1, seed=1)[0]["image"] != whole[0]["image"]).any()


def test_batches_are_made_once(source):
    batches = take(source, 9)
    assert batches[0]["image"].base is batches[8]["image"].base is not None


def test_the_last_batch_of_an_epoch_is_smaller(source):
    steps = -(-len(source) // 64)
    sizes = [len(b["label"]) for b in take(source, 3, start_step=steps - 2)]
    assert sizes == [64, len(source) % 64, 64]
    kept = take(source, 3, start_step=steps - 2, drop_remainder=True)
    assert [len(b["label"]) for b in kept] == [64, 64, 64]


def test_processes_joined_are_the_single_process(source):
    kwargs = {"drop_remainder": True, "start_step": 3}
    parts = [take(source, 3, process_index=p, process_count=2, **kwargs) for p in (0, 1)]
    for batch, *both in zip(take(source, 3, **kwargs), *parts, strict=True):
        np.testing.assert_array_equal(np.concatenate([b["image"] for b in both]), batch["image"])


def test_evaluation_counts_every_example_once():
    source = load_source("synthetic", "test", image_size=4)
    counts = [
        sum(
            batch["mask"].sum()
            for batch in eval_batches(source, batch_size=384, process_index=p, process_count=2)
        )
        for p in (0, 1)
    ]
    assert sum(counts) == 50_000
    (last,) = itertools.islice(eval_batches(source, batch_size=384), 130, None)
    assert last["image"].shape == (384, 4, 4, 3) and last["mask"].sum() == 50_000 % 384
