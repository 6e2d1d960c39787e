"""Pairs of images to verify: all, or drawn at random; and their scores."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from shift_jax.errors import InputError, positive_int
from shift_jax.tasks.similarity import check_embeddings, cosine
from shift_jax.tasks.verification import stratified_folds

_MOST_PAIRS = 10_000_000


@dataclasses.dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs to verify, as positions in a list of images, so that each image is embedded once."""

    images: Sequence[str] | np.ndarray
    """The N images to embed, in order: paths, or int64 [N], positions in the labels that the pairs
    were drawn from."""
    first: np.ndarray
    """int64 [P, K], positions in `images`. The similarity of a pair is the mean over its K pairs of
    images: one, or several pairs of frames of two videos."""
    second: np.ndarray
    """Likewise."""
    same: np.ndarray
    """bool [P]."""
    folds: np.ndarray
    """int32 [P]."""
    missing: tuple[str, ...] = ()
    """Images or videos that are left out: not found, not readable, or of a person that the network
    was trained on."""
    num_left_out: int = 0
    """The number of pairs of the protocol that need one of `missing` and are left out."""

    def scores(self, embeddings: np.ndarray) -> np.ndarray:
        """Returns the cosine similarity of each pair, the mean over its K pairs of images.

        Args:
          embeddings: float [N, D], of `images` in order.

        Returns:
          float64 [P].

        Raises:
          InputError: another number of embeddings, or some that `check_embeddings` refuses.
        """
        embeddings = np.asarray(embeddings)
        check_embeddings(embeddings)
        if len(embeddings) != len(self.images):
            raise InputError(
                f"There are {len(embeddings):,} embeddings, expected one for each of the "
                f"{len(self.images):,} images, in order."
            )
        first, second = self.first.ravel(), self.second.ravel()
        scores = np.empty(len(first))
        # All at once, the half million pairs of frames of YTF would need gigabytes.
        for start in range(0, len(first), 10_000):
            part = slice(start, start + 10_000)
            scores[part] = cosine(embeddings[first[part]], embeddings[second[part]])
        return scores.reshape(self.first.shape).mean(axis=1)

    def without(self, left_out: Mapping[int, str]) -> Pairs:
        """Returns the pairs that need none of some images; the list of images stays.

        Args:
          left_out: names of images by their positions in `images`.

        Raises:
          InputError: no pair is left.
        """
        if not left_out:
            return self
        ends = np.concatenate([self.first, self.second], axis=1)
        kept = ~np.isin(ends, list(left_out)).any(axis=1)
        if not kept.any():
            raise InputError(
                f"All {len(ends):,} pairs need one of {len(left_out):,} images that are unreadable "
                f"or of persons trained on, such as {next(iter(left_out.values()))}: add others."
            )
        return dataclasses.replace(
            self,
            first=self.first[kept],
            second=self.second[kept],
            same=self.same[kept],
            folds=self.folds[kept],
            missing=(*self.missing, *left_out.values()),
            num_left_out=self.num_left_out + int((~kept).sum()),
        )

    def describe(self) -> str:
        """Returns one line: the numbers of pairs and images, and what is left out."""
        num_same = self.same.sum()
        text = (
            f"{num_same:,} same and {len(self.same) - num_same:,} different pairs "
            f"of {len(self.images):,} images in {len(np.unique(self.folds))} folds"
        )
        if self.missing:
            more = ", …" if len(self.missing) > 5 else ""
            text += (
                f"; {self.num_left_out:,} pairs left out, since {len(self.missing):,} images are "
                f"missing, unreadable or of persons trained on: {', '.join(self.missing[:5])}{more}"
            )
        return text


def random_pairs(
    labels: np.ndarray,
    num_pairs: int,
    seed: int,
    *,
    num_folds: int = 10,
) -> Pairs:
    """Draws distinct pairs of images at random, half of them of one identity.

    The paper draws 100,000 such pairs from MS-Celeb-1M, without the identities trained on (Section
    3.3). All pairs of one identity are equally likely, and so are all pairs of two identities.
    Identities with many images therefore occur more often.

    Args:
      labels: int [N], the identity of each image.
      num_pairs: number of pairs, no two of which have the same two images.
      seed: of the pairs and folds.
      num_folds: see `verification.stratified_folds`.

    Returns:
      The pairs, those of one identity first; `images` are the positions in `labels` that occur.

    Raises:
      InputError: fewer possible pairs than `num_pairs`, or numbers that do not fit.
    """
    positive_int("num_pairs", num_pairs)
    order, start = _by_identity(labels)
    rng = np.random.default_rng(seed)
    num_same = num_pairs // 2
    ends = []
    for same, number in ((True, num_same), (False, num_pairs - num_same)):
        possible = _num_possible(start, same)
        if number > possible:
            raise InputError(
                f"{number:,} pairs of {'the same' if same else 'different'} identities were asked "
                f"for, and {len(order):,} images of {len(np.unique(start)):,} identities have "
                f"{possible:,}: ask for fewer pairs or add images."
            )
        ends.append(_pairs_by_number(start, same, rng.choice(possible, number, replace=False)))
    return _labelled(order, ends, num_folds, seed)


def all_pairs(labels: np.ndarray, *, num_folds: int = 10, seed: int = 0) -> Pairs:
    """Pairs each image with every other image once, for small sets: 100 images have 4,950 pairs.

    Args:
      labels: int [N], the identity of each image.
      num_folds, seed: see `verification.stratified_folds`.

    Returns:
      The pairs, those of one identity first; `images` are the positions in `labels`.

    Raises:
      InputError: more than ten million pairs, or too few pairs of either kind for the folds.
    """
    order, start = _by_identity(labels)
    if math.comb(len(order), 2) > _MOST_PAIRS:
        raise InputError(
            f"{len(order):,} images have {math.comb(len(order), 2):,} pairs, expected at most "
            f"{_MOST_PAIRS:,}: use random_pairs."
        )
    numbers = {same: np.arange(_num_possible(start, same)) for same in (True, False)}
    ends = [_pairs_by_number(start, same, each) for same, each in numbers.items()]
    return _labelled(order, ends, num_folds, seed)


def _by_identity(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns image positions sorted by identity, and where the identity of each begins there."""
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"labels is {labels.dtype} {list(labels.shape)}, expected one integer for each image."
        )
    order = np.argsort(labels, kind="stable")
    _, first, count = np.unique(labels[order], return_index=True, return_counts=True)
    return order, np.repeat(first, count)


def _num_possible(start: np.ndarray, same: bool) -> int:
    return int((np.arange(len(start)) - start).sum() if same else start.sum())


def _pairs_by_number(start: np.ndarray, same: bool, numbers: np.ndarray) -> np.ndarray:
    """Returns the pairs of images sorted by identity with these numbers, int64 [2, len(numbers)].

    Pairs are numbered by their second image, then by their first. The firsts of an image are all
    earlier images of its identity, or all images of earlier identities.
    """
    firsts = np.arange(len(start)) - start if same else start
    up_to = np.cumsum(firsts)
    second = np.searchsorted(up_to, numbers, side="right")
    first = numbers - (up_to - firsts)[second] + (start[second] if same else 0)
    return np.stack([first, second])


def _labelled(order: np.ndarray, ends: list[np.ndarray], num_folds: int, seed: int) -> Pairs:
    same = np.repeat([True, False], [each.shape[1] for each in ends])
    images, index = np.unique(order[np.concatenate(ends, axis=1)], return_inverse=True)
    first, second = index.reshape(2, -1, 1)
    return Pairs(images, first, second, same, stratified_folds(same, num_folds, seed))
