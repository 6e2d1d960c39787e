"""Examples labeled as a network labels them that learned its classes from other examples."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np

from shift_jax.errors import InputError

if TYPE_CHECKING:
    from shift_jax.data.sources.source import DescribedSource, Example, Source


def class_difference(before: Sequence[str], now: Sequence[str]) -> str:
    """Says how the classes of two datasets differ, such as "'dog' is missing and 'fox' is new"."""
    missing = [name for name in before if name not in set(now)]
    new = [name for name in now if name not in set(before)]
    parts = [f"{_listed(missing)} missing"] * bool(missing) + [f"{_listed(new)} new"] * bool(new)
    return " and ".join(parts) or "the same classes come in another order"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:3])) + (f" and {len(names) - 3} more" * (len(names) > 3))
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def known_classes(source: Source, learned: Sequence[str], *, allow_subset: bool = False) -> Source:
    """Returns the examples of a source under the labels of a network that learned other ones.

    Args:
      source: Examples whose classes have names.
      learned: The names of the network's classes, in the order of its outputs.
      allow_subset: Whether the source may have other classes, whose examples are left out, and
        lack some.

    Returns:
      A source with the class names `learned`.

    Raises:
      InputError: the source has other classes and `allow_subset` is False, or it has none of them.
    """
    names = source.class_names
    assert names is not None
    if names == tuple(learned):
        return source
    different = set(names) ^ set(learned)
    if different and not allow_subset:
        raise InputError(
            f"The examples have other classes than the network learned: "
            f"{class_difference(learned, names)}; name a dataset of the same {len(learned):,} "
            "classes, or give --allow_subset to evaluate the known ones only."
        )
    label_of = {name: label for label, name in enumerate(learned)}
    new_labels = np.array([label_of.get(name, -1) for name in names], np.int32)
    positions = np.arange(len(source))
    if (new_labels < 0).any():
        positions = np.flatnonzero(new_labels[_labels(source)] >= 0)
        if not positions.size:
            raise InputError(
                f"None of the examples is of a class that the network learned: "
                f"{class_difference(learned, names)}; name another dataset."
            )
    return _Relabeled(source, positions, new_labels, tuple(learned))


@dataclasses.dataclass(frozen=True)
class _Relabeled:
    """Some examples of a source under other labels. A `Source`."""

    source: Source
    positions: np.ndarray
    new_labels: np.ndarray
    class_names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return self.source.image_shape

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> Example:
        example = self.source[int(self.positions[index])]
        return {"image": example["image"], "label": self.new_labels[example["label"]]}

    def describe(self, index: int) -> str:
        """Names the example at `index` as the source does."""
        return cast("DescribedSource", self.source).describe(int(self.positions[index]))


def _labels(source: Source) -> np.ndarray:
    """Returns the labels of all examples, int32 [n], decoding no image if the source can do so."""
    labels = getattr(source, "labels", None)
    if labels is None:
        read = getattr(source, "encoded", source.__getitem__)
        labels = np.array([read(index)["label"] for index in range(len(source))], np.int32)
    return labels
