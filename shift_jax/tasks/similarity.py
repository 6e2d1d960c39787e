"""The similarity of faces: cosines between embeddings."""

from __future__ import annotations

import numpy as np

from shift_jax.errors import InputError

DIVERGED = (
    "are not finite, so the network has probably diverged: take an earlier checkpoint or a lower "
    "learning rate."
)
"""The end of a sentence about values of a network."""


def check_embeddings(embeddings: np.ndarray) -> None:
    """Raises `InputError` unless every row of float [N, D] is finite and not zero."""
    if embeddings.ndim != 2:
        raise InputError(
            f"The embeddings are {list(embeddings.shape)}, expected an array [images, features]."
        )
    wrong = np.sum(~np.isfinite(embeddings).all(axis=1))
    if wrong:
        raise InputError(f"{wrong:,} of {len(embeddings):,} embeddings {DIVERGED}")
    zero = np.sum(~(embeddings != 0).any(axis=1))
    if zero:
        raise InputError(
            f"{zero:,} of {len(embeddings):,} embeddings are all zero and have no direction: check "
            "the inputs and weights of the network."
        )


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns the cosine similarity of each row of `a` to that of `b`, float64 [P] in -1..1.

    Args:
      a: float [P, D], embeddings, which need not be normalized.
      b: float [P, D].

    Raises:
      InputError: different shapes, or embeddings that `check_embeddings` refuses.
    """
    a, b = (np.asarray(each, np.float64) for each in (a, b))
    if a.shape != b.shape:
        raise InputError(
            f"The embeddings are {list(a.shape)} and {list(b.shape)}, expected two arrays of the "
            "same shape [pairs, features]."
        )
    directions = []
    for each in (a, b):
        check_embeddings(each)
        # Scaled first, because squares of very small or large values leave the range of float64.
        scaled = each / np.abs(each).max(axis=1, keepdims=True)
        directions.append(scaled / np.linalg.norm(scaled, axis=1, keepdims=True))
    return np.clip(np.einsum("pd,pd->p", *directions), -1, 1)
