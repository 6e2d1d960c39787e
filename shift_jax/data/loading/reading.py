"""Reads single examples for a batch and replaces unreadable ones."""

import dataclasses
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from shift_jax.data.augment.transforms import Transform
from shift_jax.data.decode.unreadable import (
    Allowance,
    UndecodableError,
    Unreadable,
    UnreadableImageError,
)
from shift_jax.data.loading.sampling import ClassBalanced
from shift_jax.data.sources.source import DescribedSource, Example, Source

# The key under which an example or a batch carries its `Unreadable`s to the process that counts.
UNREADABLE = "unreadable"


@dataclasses.dataclass(frozen=True)
class TrainReader:
    """Reads and transforms the example at an index, or the next readable one.

    The result depends only on the index, the random numbers and the source, so that batches remain
    a function of (seed, step).
    """

    source: Source
    transform: Transform
    allowance: Allowance
    balanced: ClassBalanced | None = None
    """Draws an index that replaces the given one."""

    def __call__(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        if self.balanced is not None:
            index = self.balanced.draw(rng)
        read = self._read()
        unreadable: list[Unreadable] = []
        while True:
            try:
                example = self.transform(read(index), rng)
            except (UnreadableImageError, UndecodableError) as error:
                unreadable.append(_unreadable(self.source, index, error))
                if self.allowance.exceeded_by(len(unreadable)):
                    # The process that counts these ends the run, so nobody sees this image.
                    return {**_blank(self.source), UNREADABLE: unreadable}
            else:
                return {**example, UNREADABLE: unreadable}
            index = (index + 1) % len(self.source)

    def _read(self) -> Callable[[int], Any]:
        # isinstance with a protocol would look up all of the source's attributes for each example.
        encoded = getattr(self.source, "encoded", None)
        if encoded is not None and getattr(self.transform, "reads_encoded", False):
            return encoded
        return self.source.__getitem__


@dataclasses.dataclass(frozen=True)
class EvalReader:
    """Reads a source with a mask, followed by masked black images up to `length` examples.

    Masked black images also replace unreadable ones.
    """

    source: Source
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        unreadable = []
        if index < len(self.source):
            try:
                return {**self.source[index], "mask": np.True_, UNREADABLE: unreadable}
            except UnreadableImageError as error:
                unreadable.append(_unreadable(self.source, index, error))
        return {**_blank(self.source), "mask": np.False_, UNREADABLE: unreadable}


def stack(examples: list[dict[str, Any]]) -> dict[str, Any]:
    """Stacks examples into a batch: arrays with a new first axis and one list of `Unreadable`s."""
    batch: dict[str, Any] = {
        key: np.stack([example[key] for example in examples])
        for key in examples[0]
        if key != UNREADABLE
    }
    batch[UNREADABLE] = [each for example in examples for each in example[UNREADABLE]]
    return batch


def _blank(source: Source) -> Example:
    return Example(image=np.zeros(source.image_shape, np.uint8), label=np.int32(0))


def _unreadable(
    source: Source, index: int, error: UnreadableImageError | UndecodableError
) -> Unreadable:
    if isinstance(error, UnreadableImageError):
        return Unreadable(int(index), error.name, error.reason)
    # Only sources of files have images that cannot be decoded.
    return Unreadable(int(index), cast(DescribedSource, source).describe(index), str(error))
