"""Class-balanced sampling, from the draw to the batch."""

import dataclasses
import itertools

import numpy as np
import pytest

from shift_jax.data import Subset, load_source, pad_crop_flip, train_batches
from shift_jax.errors import InputError

TRANSFORM = pad_crop_flip(1, True)
SIZES = (1, 2, 5, 40, 200)


@dataclasses.dataclass(frozen=True)
class Skewed:
    """Images of the value of their position, in mixed classes of SIZES; class 5 has none."""

    labels: np.ndarray = dataclasses.field(
        default_factory=lambda: np.random.default_rng(0).permutation(
            np.repeat(np.arange(5, dtype=np.int32), SIZES)
        )
    )
    num_classes: int = 6
    class_names: None = None
    image_shape: tuple[int, int, int] = (4, 4, 1)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": np.full((4, 4, 1), index, np.uint8), "label": self.labels[index]}


def take(count, source=None, transform=TRANSFORM, **kwargs):
    source = Skewed() if source is None else source
    kwargs = {"batch_size": 64, "seed": 0, "sampling": "balanced"} | kwargs
    batches = train_batches(source, transform, **kwargs)
    got = list(itertools.islice(batches, count))
    batches.close()
    return got


def assert_same(batches, others):
    assert len(batches) == len(others) > 0
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            np.testing.assert_array_equal(batch[key], other[key])


@pytest.fixture(scope="module")
def drawn():
    """The positions and labels of about 5,000 balanced examples."""
    batches = take(80, transform=pad_crop_flip(0, False))
    positions = np.concatenate([batch["image"][:, 0, 0, 0] for batch in batches])
    return positions, np.concatenate([batch["label"] for batch in batches])


def test_every_class_is_shown_equally_often(drawn):
    counts = np.bincount(drawn[1], minlength=6)
    assert counts[5] == 0
    # 5 standard deviations of the binomial distribution: the draw is fixed, and other seeds of
    # a right one would pass but once in hundred thousands.
    total = counts.sum()
    assert (np.abs(counts[:5] - total / 5) < 5 * np.sqrt(total * 0.2 * 0.8)).all(), counts


def test_so_is_every_image_of_a_class(drawn):
    positions, labels = drawn
    np.testing.assert_array_equal(Skewed().labels[positions], labels)
    for label, size in enumerate(SIZES):
        counts = np.bincount(positions[labels == label], minlength=len(Skewed()))
        counts = counts[Skewed().labels == label]
        mean = counts.sum() / size
        assert (np.abs(counts - mean) <= 5 * np.sqrt(mean)).all(), counts


def test_a_batch_depends_on_seed_and_step_only():
    # 248 examples: every fourth batch is smaller.
    whole = take(9)
    assert [len(batch["label"]) for batch in whole] == [64, 64, 64, 56] * 2 + [64]
    for step in (1, 4, 6):
        assert_same(take(9 - step, start_step=step), whole[step:])
    assert (take(1, seed=1)[0]["image"] != whole[0]["image"]).any()
    # Nor do epochs repeat each other.
    assert (whole[0]["label"] != whole[4]["label"]).any()


def test_processes_and_workers_change_nothing():
    whole = take(5)
    halves = [take(5, process_index=p, process_count=2) for p in (0, 1)]
    for batch, *parts in zip(whole, *halves, strict=True):
        for key in batch:
            np.testing.assert_array_equal(np.concatenate([part[key] for part in parts]), batch[key])
    assert_same(take(5, num_workers=1), whole)


def test_uniform_is_the_default_and_shows_every_example_once():
    batches = train_batches(Skewed(), TRANSFORM, batch_size=64, seed=0)
    uniform = take(4, sampling="uniform")
    assert_same(list(itertools.islice(batches, 4)), uniform)
    batches.close()
    labels = np.concatenate([batch["label"] for batch in uniform])
    assert np.bincount(labels).tolist() == list(SIZES)


def test_parts_of_a_source_can_be_balanced():
    digits = load_source("digits", "train")
    of = [np.flatnonzero(digits.labels == label) for label in (3, 0, 8)]
    part = Subset(digits, np.concatenate([of[0], of[1][:1], of[2][:9]]))
    labels = np.concatenate([batch["label"] for batch in take(4, part)])
    shares = np.bincount(labels, minlength=10) / len(labels)
    assert shares[[3, 0, 8]].sum() == 1 and (shares[[3, 0, 8]] > 0.2).all()


def test_what_can_not_be_balanced_is_refused():
    source = load_source("synthetic", "train[:100]", image_size=8)
    with pytest.raises(
        InputError,
        match=r"^sampling 'balanced' needs the labels before the images are read, which a "
        r"SyntheticSource does not have: use digits, folders or identities, or sampling "
        r"'uniform'\.$",
    ):
        take(1, source)
    with pytest.raises(InputError, match=r"^sampling is 'balance', expected 'uniform' or 'bal"):
        take(1, sampling="balance")
