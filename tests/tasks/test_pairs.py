import itertools
import math
from collections import Counter

import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.tasks.pairs import Pairs, all_pairs, random_pairs

LABELS = np.random.default_rng(0).permutation(np.repeat([4, -7, 90, 11, 5], [6, 5, 1, 9, 4]))


def in_labels(pairs):
    """Each pair as a set of positions in the labels, and what it says of them."""
    assert pairs.first.shape == pairs.second.shape == (len(pairs.same), 1)
    ends = pairs.images[np.hstack([pairs.first, pairs.second])]
    return [(frozenset(pair), same) for pair, same in zip(ends.tolist(), pairs.same, strict=True)]


def every_pair(labels):
    return {
        frozenset([i, j]): labels[i] == labels[j]
        for i, j in itertools.combinations(range(len(labels)), 2)
    }


def test_all_pairs_are_all_pairs():
    pairs = all_pairs(LABELS, num_folds=4, seed=0)
    found = in_labels(pairs)
    assert len(found) == math.comb(len(LABELS), 2)
    assert dict(found) == every_pair(LABELS)
    for part in (pairs.folds[pairs.same], pairs.folds[~pairs.same]):
        assert np.ptp(np.bincount(part, minlength=4)) <= 1
    assert not pairs.missing and not pairs.num_left_out


def test_ten_people_with_ten_images_have_4950_pairs():
    pairs = all_pairs(np.repeat(np.arange(10), 10))
    assert (pairs.same.sum(), len(pairs.same), len(pairs.images)) == (450, 4950, 100)
    assert pairs.describe() == "450 same and 4,500 different pairs of 100 images in 10 folds"


def test_random_pairs_are_distinct_and_rightly_labelled():
    pairs = random_pairs(LABELS, 60, seed=3, num_folds=5)
    found, truth = in_labels(pairs), every_pair(LABELS)
    assert len(dict(found)) == len(found) == 60
    assert all(truth[ends] == same for ends, same in found)
    assert pairs.same.sum() == 30
    assert set(pairs.images.tolist()) == {position for ends, _ in found for position in ends}
    np.testing.assert_array_equal(np.bincount(pairs.folds[pairs.same]), [6] * 5)
    np.testing.assert_array_equal(np.bincount(pairs.folds[~pairs.same]), [6] * 5)


def test_random_pairs_depend_on_the_seed_alone():
    first, again, other = (random_pairs(LABELS, 40, seed, num_folds=2) for seed in (1, 1, 2))
    assert in_labels(first) == in_labels(again)
    np.testing.assert_array_equal(first.folds, again.folds)
    assert in_labels(first) != in_labels(other)


def test_all_random_pairs_there_are():
    labels = np.array([0, 1, 0, 1, 2, 2])  # 3 same and 12 different pairs.
    pairs = random_pairs(labels, 6, seed=0, num_folds=2)
    same = {ends for ends, is_same in every_pair(labels).items() if is_same}
    assert {ends for ends, is_same in in_labels(pairs) if is_same} == same


def test_random_pairs_are_equally_likely():
    labels = np.array([0, 1, 0, 0, 1, 2])
    draws = Counter(
        ends
        for seed in range(500)
        for ends, _ in in_labels(random_pairs(labels, 4, seed, num_folds=2))
    )
    truth = every_pair(labels)
    assert set(draws) == set(truth)
    for ends, times in draws.items():
        # Two of each kind are drawn 500 times: of 4 possible same and 11 different pairs.
        expected = 1000 / (4 if truth[ends] else 11)
        assert times == pytest.approx(expected, abs=5 * math.sqrt(expected))


def test_a_million_images_are_no_problem():
    labels = np.arange(1_000_000) // 10
    pairs = random_pairs(labels, 1000, seed=0)
    ends = labels[pairs.images[np.hstack([pairs.first, pairs.second])]]
    np.testing.assert_array_equal(ends[:, 0] == ends[:, 1], pairs.same)
    assert pairs.images.max() > 900_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        # 15 + 10 + 0 + 36 + 6 pairs of one identity.
        ({"num_pairs": 136}, "68 pairs of the same identities.*25 images of 5.* have 67"),
        (
            {"num_pairs": 11, "labels": np.array([0] * 5 + [1]), "num_folds": 2},
            "6 pairs of different identities.*6 images of 2 identities have 5",
        ),
        ({"num_pairs": 10}, "num_folds is 10"),
        ({"num_pairs": 0}, "num_pairs is 0"),
        ({"num_pairs": 40, "labels": np.array(["a", "b"])}, "labels is <U1"),
    ],
)
def test_random_pairs_refuse(arguments, message):
    with pytest.raises(InputError, match=message):
        random_pairs(**{"labels": LABELS, "seed": 0, **arguments})


def test_too_many_pairs_for_all():
    with pytest.raises(InputError, match="5,000 images have 12,497,500 pairs.*random_pairs"):
        all_pairs(np.arange(5000))


def some_pairs(num_pairs, each, num_images):
    first, second = np.random.default_rng(0).integers(num_images, size=(2, num_pairs, each))
    same = np.arange(num_pairs) < 2
    return Pairs(np.arange(num_images), first, second, same, np.zeros(num_pairs, np.int32))


@pytest.mark.parametrize(("num_pairs", "each"), [(5, 1), (120, 100)])
def test_scores_are_mean_similarities(num_pairs, each):
    embeddings = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    pairs = some_pairs(num_pairs, each, 40)
    rows = embeddings.astype(np.float64).tolist()

    def similarity(a, b):
        product = sum(x * y for x, y in zip(a, b, strict=True))
        return product / math.hypot(*a) / math.hypot(*b)

    expected = [
        sum(similarity(rows[i], rows[j]) for i, j in zip(*ends, strict=True)) / each
        for ends in zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)
    ]
    np.testing.assert_allclose(pairs.scores(embeddings), expected, atol=1e-12)


def test_scores_refuse_other_embeddings():
    pairs = some_pairs(4, 1, 6)
    with pytest.raises(InputError, match="5 embeddings, expected one for each of the 6 images"):
        pairs.scores(np.ones((5, 2)))
    with pytest.raises(InputError, match="^6 of 6 embeddings are all zero"):
        pairs.scores(np.zeros((6, 2)))
    with pytest.raises(InputError, match="^1 of 6 embeddings are not finite"):
        pairs.scores(np.array([[1.0, np.inf], *[[1, 1]] * 5]))
