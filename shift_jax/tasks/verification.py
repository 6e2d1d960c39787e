"""Verification: how well a similarity tells pairs of one identity from pairs of two.

The protocol is View 2 of LFW (Huang et al., "Labeled Faces in the Wild", 2007): the other folds
choose the threshold of each fold. The paper reports accuracy and AUC in Table 8.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from shift_jax.errors import InputError, positive_int
from shift_jax.tasks.similarity import DIVERGED

FAR_TARGETS = (1e-1, 1e-2, 1e-3, 1e-4)
"""The false accept rates at which the true accept rate is reported."""


@dataclasses.dataclass(frozen=True)
class Verification:
    """What `verify` measured. Rates and accuracies are fractions."""

    accuracy: float
    """Mean over the folds, each with the best threshold of the other folds."""
    accuracy_std: float
    """Standard deviation of the accuracies of the folds, `np.std` with ddof=0 as in FaceNet's code:
    the ± of Table 8."""
    accuracy_standard_error: float
    """Standard error of the mean, as on LFW's results pages: the deviation with ddof=1 over
    √folds."""
    fold_accuracies: tuple[float, ...]
    fold_thresholds: tuple[float, ...]
    threshold: float
    """Threshold for use: a larger similarity means the same identity. Over all pairs, it maximizes
    the mean of two shares, of same pairs accepted and of different pairs rejected. The accuracies
    do not use it."""
    auc: float
    """Area under the ROC curve of all pairs."""
    eer: float
    """Equal error rate: where the false accept and false reject rates cross, interpolated."""
    tar_at_far: dict[float, float | None]
    """For each of `FAR_TARGETS`, the largest true accept rate whose false accept rate is at most
    the target; None with fewer than 1 / FAR different pairs, which allow no false accept."""
    num_same: int
    num_different: int

    def not_measurable(self) -> dict[float, str]:
        """Returns the reason for each target at which `tar_at_far` is None."""
        return {
            far: f"needs {round(1 / far):,} different pairs, there are {self.num_different:,}"
            for far, tar in self.tar_at_far.items()
            if tar is None
        }

    def as_text(self) -> str:
        """Returns a small table with the columns of Table 8, and remarks on it."""
        accuracy = f"{100 * self.accuracy:.2f} ± {100 * self.accuracy_std:.2f}"
        reasons = self.not_measurable()
        lines = [
            "accuracy ± std (%)   AUC (%)   EER (%)   pairs",
            f"{accuracy:>18}{100 * self.auc:>10.2f}{100 * self.eer:>10.2f}   "
            f"{self.num_same:,} same, {self.num_different:,} different",
            f"±: standard deviation over {len(self.fold_accuracies)} folds (ddof=0); standard "
            f"error of the mean {100 * self.accuracy_standard_error:.2f}",
        ]
        for far, tar in self.tar_at_far.items():
            value = f"({reasons[far]})" if tar is None else f"{100 * tar:.2f} %"
            lines.append(f"TAR at FAR {100 * far:g} %: {value}")
        lines.append(f"Threshold for use: a similarity above {self.threshold:.4f} means the same")
        commoner = max(self.num_same, self.num_different)
        if self.num_same != self.num_different:
            share = commoner / (self.num_same + self.num_different)
            answer = "same" if commoner == self.num_same else "different"
            lines.append(f"Answering {answer!r} for every pair scores {100 * share:.2f} %")
        return "\n".join(lines)

    def as_dict(self) -> dict:
        """Returns all fields as JSON values, and the reasons of `not_measurable`."""
        return {
            **dataclasses.asdict(self),
            "fold_accuracies": list(self.fold_accuracies),
            "fold_thresholds": list(self.fold_thresholds),
            "tar_at_far": {f"{far:g}": tar for far, tar in self.tar_at_far.items()},
            "not_measurable": {f"{far:g}": why for far, why in self.not_measurable().items()},
        }


def verify(scores: np.ndarray, same: np.ndarray, folds: np.ndarray) -> Verification:
    """Measures scored pairs by cross-validation and over all pairs.

    A pair counts as the same if its score exceeds the threshold. The search for a threshold is
    exact: it tries every one that accepts other pairs, namely the midpoints between neighboring
    distinct scores, the largest score, which accepts no pair, and the next float below the
    smallest, which accepts all. Among equally good thresholds it takes the middle one, and of two
    middle ones the larger.

    Args:
      scores: float [P], finite similarities; larger means more alike.
      same: bool [P], whether a pair shows one identity.
      folds: int [P], the fold of each pair, in any numbers.

    Raises:
      InputError: different lengths, scores that are not finite, fewer than two folds, pairs of one
        kind only, or a fold without which all pairs are of one kind.
    """
    # It takes seconds to import.
    from sklearn.metrics import roc_auc_score

    scores, same = _checked(scores, same)
    folds = np.asarray(folds)
    if folds.shape != scores.shape or not np.issubdtype(folds.dtype, np.integer):
        raise InputError(
            f"folds is {folds.dtype} {list(folds.shape)}, expected one integer for each of the "
            f"{len(scores):,} scores."
        )
    names = np.unique(folds)
    if len(names) < 2:
        raise InputError(
            "All pairs are in one fold, expected at least two folds, since the other folds choose "
            "the threshold of each: use stratified_folds."
        )

    thresholds, accuracies = [], []
    for fold in names:
        here = folds == fold
        others = same[~here]
        if others.all() or not others.any():
            kind = "the same identity" if others.all() else "different identities"
            raise InputError(
                f"Without fold {fold} all pairs are of {kind}, expected both kinds, which it takes "
                "to choose a threshold: use stratified_folds."
            )
        thresholds.append(_best_threshold(scores[~here], others))
        accuracies.append(float(np.mean((scores[here] > thresholds[-1]) == same[here])))

    far, tar, _ = roc(scores, same)
    num_same = int(same.sum())
    num_different = len(same) - num_same
    return Verification(
        accuracy=float(np.mean(accuracies)),
        accuracy_std=float(np.std(accuracies)),
        accuracy_standard_error=float(np.std(accuracies, ddof=1) / np.sqrt(len(accuracies))),
        fold_accuracies=tuple(accuracies),
        fold_thresholds=tuple(thresholds),
        threshold=_best_threshold(scores, same, balanced=True),
        auc=float(roc_auc_score(same, scores)),
        eer=_equal_error_rate(far, tar),
        tar_at_far={
            target: float(tar[far <= target].max()) if num_different >= round(1 / target) else None
            for target in FAR_TARGETS
        },
        num_same=num_same,
        num_different=num_different,
    )


def roc(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the corners of the ROC curve, one for each set of pairs that a threshold accepts.

    Args:
      scores: float [P], finite similarities.
      same: bool [P], with both values in it.

    Returns:
      (false accept rate, true accept rate, threshold), each float64 [distinct scores + 1], from the
      threshold that accepts no pair to the one that accepts all.

    Raises:
      InputError: different lengths, scores that are not finite, or pairs of one kind only.
    """
    scores, same = _checked(scores, same)
    thresholds, accepted_same, accepted_different = _accepted(scores, same)
    return accepted_different / accepted_different[-1], accepted_same / same.sum(), thresholds


def stratified_folds(same: np.ndarray, num_folds: int, seed: int) -> np.ndarray:
    """Deals pairs at random into folds with equal shares of same and different pairs.

    Folds differ by at most one in the number of either kind, and of both together.

    Args:
      same: bool [P].
      num_folds: at least 2, at most the number of same and of different pairs.
      seed: of the random order.

    Returns:
      int32 [P] in 0..num_folds-1.

    Raises:
      InputError: a number of folds that does not fit.
    """
    same = np.asarray(same, bool)
    rarer = min(same.sum(), (~same).sum())
    if not 2 <= positive_int("num_folds", num_folds) <= rarer:
        raise InputError(
            f"num_folds is {num_folds}, and each of at least two folds needs a pair of either "
            f"kind: there are {same.sum():,} same and {(~same).sum():,} different pairs."
        )
    rng = np.random.default_rng(seed)
    order = np.concatenate([rng.permutation(np.flatnonzero(kind)) for kind in (same, ~same)])
    folds = np.empty(len(same), np.int32)
    folds[order] = np.arange(len(same)) % num_folds
    return folds


def _checked(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns float64 and bool [P]; InputError for what `roc` names."""
    scores, same = np.asarray(scores, np.float64), np.asarray(same)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise InputError(
            f"scores is {list(scores.shape)} and same {list(same.shape)}, expected one value of "
            "each for every pair."
        )
    if same.dtype != bool:
        raise InputError(f"same is {same.dtype}, expected bool: True for the same identity.")
    wrong = np.sum(~np.isfinite(scores))
    if wrong:
        raise InputError(f"{wrong:,} of {len(scores):,} scores {DIVERGED}")
    if same.all() or not same.any():
        raise InputError(
            f"There are {same.sum():,} same and {(~same).sum():,} different pairs, expected some "
            "of both kinds."
        )
    return scores, same


def _accepted(scores: np.ndarray, same: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns (falling thresholds, accepted same, accepted different), each [distinct + 1]."""
    distinct, which = np.unique(scores, return_inverse=True)
    middle = distinct[:-1] / 2 + distinct[1:] / 2
    # Neighboring floats have no midpoint: the lower one separates them.
    middle = np.where(middle < distinct[1:], middle, distinct[:-1])
    ends = np.nextafter(distinct[0], -np.inf), distinct[-1]
    thresholds = np.concatenate([ends[:1], middle, ends[1:]])[::-1]
    accepted_same, accepted_different = (
        np.concatenate([[0], np.bincount(which[kind], minlength=len(distinct))[::-1].cumsum()])
        for kind in (same, ~same)
    )
    return thresholds, accepted_same, accepted_different


def _best_threshold(scores: np.ndarray, same: np.ndarray, balanced: bool = False) -> float:
    """The most accurate threshold; if `balanced`, as if there were equally many of both kinds."""
    thresholds, accepted_same, accepted_different = _accepted(scores, same)
    if balanced:  # In integers, where ties are exact.
        accepted_same = accepted_same * int((~same).sum())
        accepted_different = accepted_different * int(same.sum())
    gain = accepted_same - accepted_different
    best = np.flatnonzero(gain == gain.max())
    return float(thresholds[best[(len(best) - 1) // 2]])


def _equal_error_rate(far: np.ndarray, tar: np.ndarray) -> float:
    """Returns where the ROC curve, interpolated between its corners, meets FAR = 1 - TAR."""
    excess = far - (1 - tar)
    after = int(np.argmax(excess >= 0))  # Never the first corner, where it is -1.
    before = after - 1
    share = excess[before] / (excess[before] - excess[after])
    return float(far[before] + share * (far[after] - far[before]))
