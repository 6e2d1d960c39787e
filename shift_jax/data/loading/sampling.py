"""Drawing examples with the same probability for every class."""

import dataclasses

import numpy as np

from shift_jax.data.sources.source import Source
from shift_jax.errors import InputError


@dataclasses.dataclass(frozen=True)
class ClassBalanced:
    """The examples of each class, to draw from."""

    positions: np.ndarray
    """int64 [n], in the source, class by class."""
    starts: np.ndarray
    """int64 [classes with examples + 1]: class k has the positions from starts[k] to
    starts[k + 1]."""

    def draw(self, rng: np.random.Generator) -> int:
        """Draws a class uniformly, then one of its examples uniformly; returns its position."""
        drawn = rng.integers(len(self.starts) - 1)
        return int(self.positions[rng.integers(self.starts[drawn], self.starts[drawn + 1])])


def class_balanced(source: Source) -> ClassBalanced:
    """Sorts a source's examples by class.

    Args:
      source: With its `labels`, integers [n], as digits, folders and identities have them.

    Returns:
      The examples to draw from. Classes without examples are left out.

    Raises:
      InputError: the source knows a label only once it has read the example.
    """
    labels = getattr(source, "labels", None)
    if labels is None:
        raise InputError(
            f"sampling 'balanced' needs the labels before the images are read, and a "
            f"{type(source).__name__} does not know them: take digits, folders or identities, or "
            "sampling 'uniform'."
        )
    _, counts = np.unique(labels, return_counts=True)
    return ClassBalanced(
        np.argsort(labels, kind="stable"), np.concatenate([[0], np.cumsum(counts)])
    )
