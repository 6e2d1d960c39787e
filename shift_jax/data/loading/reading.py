"""Reading single examples for a batch, with what takes the place of unreadable ones."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from shift_jax.data.augment.transforms import Transform
from shift_jax.data.decode.unreadable import (
    Allowance,
    UndecodableError,
    Unreadable,
    UnreadableImageError,
)
from shift_jax.data.loading.sampling import ClassBalanced
from shift_jax.data.sources.source import Example, Source

# Under this key an example or a batch carries its `Unreadable`s to the process that counts them.
UNREADABLE = "unreadable"


@dataclasses.dataclass(frozen=True)
class TrainReader:
    """Reads and transforms the example at an index, or the next one that is readable.

    What is read depends on the index, the random numbers and the source only, so that batches
    stay a function of (seed, step).
    """

    source: Source
    transform: Transform
    allowance: Allowance
    balanced: ClassBalanced | None = None
    """Draws another index in place of each."""

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
                    # Whoever counts these ends the run: the image is never seen.
                    return {**_blank(self.source), UNREADABLE: unreadable}
            else:
                return {**example, UNREADABLE: unreadable}
            index = (index + 1) % len(self.source)

    def _read(self) -> Callable[[int], dict[str, Any]]:
        # What the source can do is not asked with isinstance, which would look at all of it for
        # every example.
        if getattr(self.transform, "reads_encoded", False) and hasattr(self.source, "encoded"):
            return self.source.encoded
        return self.source.__getitem__


@dataclasses.dataclass(frozen=True)
class EvalReader:
    """A source with a mask, followed by masked black images up to `length` examples.

    Unreadable images are black and masked too.
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
    """Makes a batch of examples: arrays with a new first axis, and one list of `Unreadable`s."""
    batch = {
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
    return Unreadable(int(index), source.describe(index), str(error))
