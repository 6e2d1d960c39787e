"""Random images in the quantity of ImageNet, so that a run measures the computation alone."""

import dataclasses
import re
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from shift_jax.data.decode.images import check_image_size
from shift_jax.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from shift_jax.data.sources.source import Example

# Of ILSVRC 2012. Its test labels are not public, so "test" is its validation split.
_NUM_EXAMPLES = {"train": 1_281_167, "validation": 50_000, "test": 50_000}
_NUM_CLASSES = 1000
_DEFAULT_SIZE = 224
# Enough for steps to differ, few enough to keep in memory.
_NUM_BATCHES = 4


@dataclasses.dataclass(frozen=True)
class SyntheticSource:
    """Random images with random labels. A `Source`."""

    length: int
    image_size: int
    num_classes: int = _NUM_CLASSES
    class_names: None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return (self.image_size, self.image_size, 3)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> "Example":
        batch = _random_batch(1, self, seed=index, number=0)
        return {"image": batch["image"][0], "label": batch["label"][0]}


def load_synthetic(
    split: str,
    data_dir: str | None,
    image_size: int | None,
    eval_crop: float,
    class_splits: Sequence[str] | None = None,
) -> SyntheticSource:
    """Opens "train" (1,281,167 images), "validation" or "test" (50,000 each), with 1,000 classes.

    Args:
      split: One of the three, or its first n examples, written "train[:n]" as in TFDS.
      data_dir: Unused: the images are random.
      image_size: Side of the square images in pixels; None for 224.
      eval_crop: Unused: the images have their final size.
      class_splits: Unused: all splits have the same classes.

    Raises:
      InputError: the split or the size is invalid.
    """
    del data_dir, eval_crop, class_splits
    match = re.fullmatch(r"(.*?)(?:\[:(\d+)\])?", split, re.DOTALL)
    assert match is not None  # The pattern matches any text.
    name, first = match.groups()
    if name not in _NUM_EXAMPLES:
        raise InputError(
            f"synthetic has no split {split!r}; use one of: {', '.join(_NUM_EXAMPLES)}."
            + did_you_mean(split, _NUM_EXAMPLES)
        )
    if image_size is not None:
        check_image_size(image_size)
    length = min(_NUM_EXAMPLES[name], int(first) if first else _NUM_EXAMPLES[name])
    if not length:
        raise InputError(f"Split {split!r} of synthetic holds no examples; choose a larger slice.")
    return SyntheticSource(length, image_size or _DEFAULT_SIZE)


def synthetic_train_batches(
    source: SyntheticSource,
    *,
    batch_size: int,
    seed: int,
    steps_per_epoch: int,
    start_step: int,
    process_index: int,
    process_count: int,
) -> Generator[dict[str, np.ndarray], None, None]:
    """Yields batches of one process without end, cycling through a few that it draws once.

    Args:
      source: Determines the shapes and the size of an epoch's last batch.
      batch_size: b, the size of a global batch.
      seed: Seed of the images and the labels.
      steps_per_epoch: Batches in an epoch, the last of which may be smaller.
      start_step: Step of the first batch.
      process_index: p, the index of this process; its rows are p*b/P to (p+1)*b/P.
      process_count: P, the number of processes.

    Yields:
      "image" uint8 [b/P, H, W, C] and "label" int32 [b/P]. The arrays are reused, hence read-only.
    """
    drawn = [_random_batch(batch_size, source, seed, number) for number in range(_NUM_BATCHES)]
    last_size = min(batch_size, source.length - (steps_per_epoch - 1) * batch_size)
    step = start_step
    while True:
        is_last = (step + 1) % steps_per_epoch == 0
        rows = (last_size if is_last else batch_size) // process_count
        part = slice(process_index * rows, (process_index + 1) * rows)
        yield {key: value[part] for key, value in drawn[step % _NUM_BATCHES].items()}
        step += 1


def synthetic_eval_batches(
    source: SyntheticSource, *, batch_size: int, process_index: int, process_count: int
) -> Generator[dict[str, np.ndarray], None, None]:
    """Yields the rows of one process for one pass over the source, in batches of one size.

    Args:
      source: Determines the shapes and the number of examples.
      batch_size: b, the size of a global batch.
      process_index: p, the index of this process; its rows are p*b/P to (p+1)*b/P.
      process_count: P, the number of processes.

    Yields:
      As `synthetic_train_batches`, with "mask" bool [b/P], which is False after the last example.
    """
    drawn = _random_batch(batch_size, source, seed=0, number=0)
    rows = batch_size // process_count
    first = process_index * rows
    drawn = {key: value[first : first + rows] for key, value in drawn.items()}
    for start in range(0, source.length, batch_size):
        yield {**drawn, "mask": start + first + np.arange(rows) < source.length}


def _random_batch(
    size: int, source: SyntheticSource, seed: int, number: int
) -> dict[str, np.ndarray]:
    rng = np.random.default_rng((seed, number))
    # Drawing bytes is many times as fast as rng.integers() with dtype uint8.
    pixels = np.frombuffer(rng.bytes(size * int(np.prod(source.image_shape))), np.uint8)
    return {
        "image": pixels.reshape(size, *source.image_shape),
        "label": rng.integers(0, source.num_classes, size, dtype=np.int32),
    }
