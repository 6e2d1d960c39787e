import itertools
import json
import math
import statistics
from fractions import Fraction

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from shift_jax.errors import InputError
from shift_jax.tasks.verification import (
    FAR_TARGETS,
    roc,
    stratified_folds,
    verify,
)

# --- The oracle: the definitions as loops over pairs.


def accepts(scores, threshold):
    return [score > threshold for score in scores]


def candidates(scores):
    """All thresholds to try, falling."""
    distinct = sorted(set(scores), reverse=True)
    middles = [(high + low) / 2 for high, low in itertools.pairwise(distinct)]
    return [distinct[0], *middles, math.nextafter(distinct[-1], -math.inf)]


def accuracy(scores, same, threshold):
    right = sum(yes == label for yes, label in zip(accepts(scores, threshold), same, strict=True))
    return right / len(same)


def balanced_accuracy(scores, same, threshold):
    """The mean of the shares of same pairs accepted and of different ones rejected, exact."""
    shares = []
    for kind in (True, False):
        of_kind = [score for score, label in zip(scores, same, strict=True) if label == kind]
        right = sum(yes == kind for yes in accepts(of_kind, threshold))
        shares.append(Fraction(right, len(of_kind)))
    return sum(shares) / 2


def best_threshold(scores, same, measure=accuracy):
    tried = candidates(scores)
    accuracies = [measure(scores, same, each) for each in tried]
    best = [each for each, value in zip(tried, accuracies, strict=True) if value == max(accuracies)]
    return best[len(best) // 2 if len(best) % 2 else len(best) // 2 - 1]


def fold_accuracies(scores, same, folds):
    accuracies = []
    for fold in sorted(set(folds)):
        other = [i for i in range(len(folds)) if folds[i] != fold]
        here = [i for i in range(len(folds)) if folds[i] == fold]
        threshold = best_threshold([scores[i] for i in other], [same[i] for i in other])
        accuracies.append(accuracy([scores[i] for i in here], [same[i] for i in here], threshold))
    return accuracies


def rates(scores, same):
    """(FAR, TAR) of each candidate, as exact fractions."""
    points = []
    for threshold in candidates(scores):
        decisions = list(zip(accepts(scores, threshold), same, strict=True))
        far = Fraction(decisions.count((True, False)), same.count(False))
        points.append((far, Fraction(decisions.count((True, True)), same.count(True))))
    return points


def equal_error_rate(points):
    for (far, tar), (next_far, next_tar) in itertools.pairwise(points):
        # On the line between both, far + t (next_far - far) = 1 - tar - t (next_tar - tar).
        t = (1 - tar - far) / (next_far - far + next_tar - tar)
        if 0 <= t <= 1:
            return far + t * (next_far - far)
    raise AssertionError("the curve never crosses")


def area(scores, same):
    wins = [
        Fraction(1, 2) if a == b else Fraction(int(a > b))
        for a, label in zip(scores, same, strict=True)
        if label
        for b, other in zip(scores, same, strict=True)
        if not other
    ]
    return sum(wins) / len(wins)


def check_against_oracle(scores, same, folds):
    result = verify(np.array(scores, np.float64), np.array(same), np.array(folds))
    expected = fold_accuracies(scores, same, folds)
    assert result.fold_accuracies == pytest.approx(expected, abs=1e-12)
    assert result.accuracy == pytest.approx(statistics.fmean(expected))
    assert result.accuracy_std == pytest.approx(statistics.pstdev(expected), abs=1e-12)
    assert result.accuracy_standard_error == pytest.approx(
        statistics.stdev(expected) / math.sqrt(len(expected)), abs=1e-12
    )
    threshold = best_threshold(scores, same, balanced_accuracy)
    assert accepts(scores, result.threshold) == accepts(scores, threshold)
    points = rates(scores, same)
    assert result.eer == pytest.approx(float(equal_error_rate(points)), abs=1e-12)
    assert result.auc == pytest.approx(float(area(scores, same)), abs=1e-12)
    for target in FAR_TARGETS:
        exact = Fraction(1, round(1 / target))
        tar = max(tar for far, tar in points if far <= exact)
        measurable = same.count(False) * exact >= 1
        assert result.tar_at_far[target] == (pytest.approx(float(tar)) if measurable else None)
    assert (result.num_same, result.num_different) == (same.count(True), same.count(False))


# Few distinct scores, so that ties within and across both kinds are common, and folds of any size.
pair = st.tuples(st.integers(-3, 3).map(lambda n: n / 4), st.booleans(), st.integers(0, 2))


@hypothesis.settings(max_examples=80, deadline=None, derandomize=True, database=None)
@hypothesis.given(st.lists(pair, max_size=30))
def test_equals_literal_definitions(pairs):
    # One pair of either kind in two folds, so that the others of any fold have both.
    pairs = [*pairs, (0.25, True, 0), (0.5, True, 1), (0.0, False, 0), (0.25, False, 1)]
    scores, same, folds = map(list, zip(*pairs, strict=True))
    check_against_oracle(scores, same, folds)


@pytest.mark.parametrize("folds", [3, 10])
def test_equals_literal_definitions_with_distinct_scores(folds):
    rng = np.random.default_rng(folds)
    same = rng.random(300) < 0.4
    scores = rng.normal(size=300) + 1.5 * same
    check_against_oracle(scores.tolist(), same.tolist(), rng.integers(0, folds, 300).tolist())


def measured(same_scores, different_scores, num_folds=2):
    scores = np.concatenate([same_scores, different_scores])
    same = np.arange(len(scores)) < len(same_scores)
    return verify(scores, same, stratified_folds(same, num_folds, seed=0))


def test_perfect_scores():
    result = measured(np.linspace(0.6, 0.9, 20), np.linspace(-0.2, 0.4, 20))
    assert result.fold_accuracies == (1.0, 1.0)
    assert (result.accuracy, result.accuracy_std, result.auc, result.eer) == (1, 0, 1, 0)
    assert result.threshold == pytest.approx(0.5)
    assert result.tar_at_far[0.1] == 1


def test_inverted_scores():
    result = measured(np.linspace(-0.2, 0.4, 20), np.linspace(0.6, 0.9, 20))
    assert (result.auc, result.eer, result.tar_at_far[0.1]) == (0, 1, 0)
    assert result.accuracy <= 0.5


def test_all_scores_tied():
    result = measured(np.zeros(20), np.zeros(20))
    assert (result.accuracy, result.auc, result.eer, result.tar_at_far[0.1]) == (0.5, 0.5, 0.5, 0)


def test_scores_that_say_nothing():
    rng = np.random.default_rng(0)
    result = measured(rng.normal(size=10_000), rng.normal(size=10_000), num_folds=10)
    assert result.accuracy == pytest.approx(0.5, abs=0.02)
    assert result.auc == pytest.approx(0.5, abs=0.02)
    for far, tar in result.tar_at_far.items():
        assert tar == pytest.approx(far, rel=1, abs=2e-3)


def test_neighboring_floats_are_told_apart():
    first = 0.75
    second = np.nextafter(first, 1)
    third = np.nextafter(second, 1)
    # Halfway rounds down between the first two, and up between the last two.
    for low, high in ((first, second), (second, third)):
        result = measured(np.full(4, high), np.full(4, low))
        assert result.accuracy == 1
        assert low <= result.threshold < high


def test_threshold_is_the_middle_of_equally_good_ones():
    folds = np.array([0, 0, 1, 1, 1, 1])

    def threshold(*same):
        return verify(np.arange(1.0, len(same) + 1), np.array(same), folds[: len(same)]).threshold

    # One mistake at 1.5 and at 3.5: of two, the larger.
    assert threshold(False, True, False, True) == 3.5
    # One mistake at 1.5, and two at least elsewhere.
    assert threshold(False, True, True, False) == 1.5
    # Two mistakes at 1.5, 3.5 and 5.5: the middle one.
    assert threshold(False, True, False, True, False, True) == 3.5


def test_targets_need_as_many_different_pairs_as_they_say():
    few, enough = (measured(np.ones(4), np.zeros(n)) for n in (9_999, 10_000))
    assert few.tar_at_far == {0.1: 1, 0.01: 1, 0.001: 1, 0.0001: None}
    assert few.not_measurable() == {0.0001: "needs 10,000 different pairs, there are 9,999"}
    assert enough.tar_at_far[0.0001] == 1
    assert enough.not_measurable() == {}


def test_false_accepts_at_the_target_are_allowed():
    # One of ten different pairs is above all same ones: FAR 0.1 exactly.
    result = measured(np.full(4, 0.5), np.array([0.9, *np.zeros(9)]))
    assert result.tar_at_far[0.1] == 1
    result = measured(np.full(4, 0.5), np.array([0.9, *np.zeros(8)]))
    assert result.tar_at_far[0.1] is None


def test_folds_may_have_any_numbers():
    rng = np.random.default_rng(0)
    same = np.arange(40) % 2 == 0
    scores, folds = rng.normal(size=40) + same, np.arange(40) // 10
    shifted = verify(scores, same, np.array([7, -1, 30, 4])[folds])
    assert sorted(shifted.fold_accuracies) == sorted(verify(scores, same, folds).fold_accuracies)


def test_roc_goes_from_no_pair_to_all():
    far, tar, thresholds = roc(np.array([3.0, 1, 2, 1]), np.array([True, True, False, False]))
    np.testing.assert_array_equal(far, [0, 0, 0.5, 1])
    np.testing.assert_array_equal(tar, [0, 0.5, 0.5, 1])
    assert thresholds[0] >= 3 and thresholds[-1] < 1
    np.testing.assert_array_equal(thresholds[1:3], [2.5, 1.5])


def test_report_has_the_columns_of_the_paper():
    scores = np.array([0.9, 0.8, 0.7, 0.1, 0.2, 0.75])
    same = np.array([True, True, True, False, False, False])
    result = verify(scores, same, np.array([0, 0, 1, 0, 1, 1]))
    text = result.as_text().splitlines()
    assert text[0].split("   ")[:3] == ["accuracy ± std (%)", "AUC (%)", "EER (%)"]
    assert f"{100 * result.accuracy:.2f} ± {100 * result.accuracy_std:.2f}" in text[1]
    assert f"{100 * 8 / 9:.2f}" in text[1] and "3 same, 3 different" in text[1]
    assert "2 folds (ddof=0)" in text[2]
    assert "TAR at FAR 0.01 %: (needs 10,000 different pairs, there are 3)" in text
    as_json = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert as_json["accuracy"] == result.accuracy
    assert as_json["fold_accuracies"] == list(result.fold_accuracies)
    assert as_json["tar_at_far"]["0.0001"] is None
    assert as_json["not_measurable"]["0.0001"].startswith("needs 10,000")


FOUR = np.array([0.1, 0.2, 0.3, 0.4])
MIXED = np.array([True, False, True, False])
HALVES = np.array([0, 0, 1, 1])


@pytest.mark.parametrize(
    ("scores", "same", "folds", "message"),
    [
        (FOUR[:3], MIXED, HALVES, r"scores is \[3\] and same \[4\]"),
        (FOUR, MIXED, HALVES[:3], r"folds is int64 \[3\].*4 scores"),
        (FOUR, MIXED, HALVES / 2, "expected one integer"),
        (FOUR, MIXED.astype(int), HALVES, "same is int64, expected bool"),
        (FOUR[:, None], MIXED[:, None], HALVES, "expected one value"),
        (
            np.array([0.1, np.nan, np.inf, 0.4]),
            MIXED,
            HALVES,
            "^2 of 4 scores are not finite.*dive",
        ),
        (FOUR, np.ones(4, bool), HALVES, "4 same and 0 different pairs"),
        (FOUR[:0], MIXED[:0], HALVES[:0], "0 same and 0 different pairs"),
        (FOUR, MIXED, HALVES * 0, "one fold, expected at least two"),
        (FOUR, HALVES == 0, HALVES, "Without fold 0 all pairs are of different identities"),
        (FOUR, HALVES == 1, HALVES, "Without fold 0 all pairs are of the same identity"),
    ],
)
def test_refuses(scores, same, folds, message):
    with pytest.raises(InputError, match=message):
        verify(scores, same, folds)


def test_a_fold_of_one_kind_is_measured_where_the_others_have_both():
    result = verify(
        np.array([0.1, 0.9, 0.2, 0.8, 0.7]),
        np.array([False, True, False, True, True]),
        np.array([0, 0, 1, 1, 2]),
    )
    assert result.fold_accuracies == (1, 1, 1)


@pytest.mark.parametrize(("num_same", "num_different", "num_folds"), [(30, 50, 10), (7, 11, 3)])
def test_folds_share_both_kinds_equally(num_same, num_different, num_folds):
    same = np.random.default_rng(0).permutation(np.arange(num_same + num_different) < num_same)
    folds = stratified_folds(same, num_folds, seed=1)
    assert set(folds.tolist()) == set(range(num_folds))
    for part in (folds[same], folds[~same], folds):
        sizes = np.bincount(part, minlength=num_folds)
        assert sizes.max() - sizes.min() <= 1
    np.testing.assert_array_equal(folds, stratified_folds(same, num_folds, seed=1))
    assert (folds != stratified_folds(same, num_folds, seed=2)).any()


@pytest.mark.parametrize("num_folds", [0, 1, 4])
def test_folds_that_do_not_fit(num_folds):
    with pytest.raises(InputError, match=f"num_folds is {num_folds}"):
        stratified_folds(np.array([True] * 3 + [False] * 9), num_folds, seed=0)
