"""Draws examples with the same probability for every class."""

import dataclasses

import numpy as np

from shift_jax.data.sources.source import Source
from shift_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class ClassBalanced:
    """The examples of each class."""

    positions: np.ndarray
    """int64 [n], positions in the source, class by class."""
    starts: np.ndarray
    """int64 [classes with examples + 1]: class k has positions[starts[k] : starts[k + 1]]."""

    def draw(self, rng: np.random.Generator) -> int:
        """Draws a class uniformly, then one of its examples uniformly, and returns its position."""
        drawn = rng.integers(len(self.starts) - 1)
        return int(self.positions[rng.integers(self.starts[drawn], self.starts[drawn + 1])])


def class_balanced(source: Source) -> ClassBalanced:
    """Sorts the examples of a source by class, omitting classes without examples.

    Args:
      source: Must have `labels`, integers [n], as digits, folders and identities do.

    Raises:
      InputError: the source knows a label only after reading the example.
    """
    labels = getattr(source, "labels", None)
    if labels is None:
        raise InputError(
            f"sampling 'balanced' needs the labels before the images are read, which a "
            f"{type(source).__name__} does not have: use digits, folders or identities, or "
            "sampling 'uniform'."
        )
    _, counts = np.unique(labels, return_counts=True)
    return ClassBalanced(
        np.argsort(labels, kind="stable"), np.concatenate([[0], np.cumsum(counts)])
    )
