"""Batches: for training a pure function of (seed, step), for evaluation every example once.

Shuffling and random transforms see the GLOBAL example index, before a process takes its
rows and before any worker takes its share. The step is therefore the whole state of the
input: nothing needs saving, and the number of workers and hosts changes no image.

With workers (`num_workers` > 0) the calling script needs the usual
`if __name__ == "__main__":`, since worker processes import it again.
"""

import math
from collections.abc import Iterator

from shift_jax.data.augment.transforms import Transform
from shift_jax.data.decode.unreadable import Allowance
from shift_jax.data.loading.read_ahead import Batch, read_ahead
from shift_jax.data.loading.reading import EvalReader, TrainReader, stack
from shift_jax.data.loading.sampling import class_balanced
from shift_jax.data.sources.source import Source
from shift_jax.data.sources.synthetic import (
    SyntheticSource,
    synthetic_eval_batches,
    synthetic_train_batches,
)
from shift_jax.errors import InputError, check_choice


def steps_per_epoch(num_examples: int, batch_size: int, drop_remainder: bool) -> int:
    """Number of batches in one pass over the data, at least 1.

    Args:
      num_examples: Size of the data set.
      batch_size: Size of a global batch.
      drop_remainder: Whether a smaller last batch is left out.

    Returns:
      The number of global batches.

    Raises:
      InputError: a size is below 1, or not even one batch is left.
    """
    if num_examples < 1:
        raise InputError(f"The data set has {num_examples} examples; it needs at least 1.")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    if not drop_remainder:
        return math.ceil(num_examples / batch_size)
    if batch_size > num_examples:
        raise InputError(
            f"batch_size {batch_size} is larger than the data set ({num_examples} examples), so "
            "drop_remainder leaves no batch; choose a smaller batch_size or keep the remainder."
        )
    return num_examples // batch_size


def train_batches(
    source: Source,
    transform: Transform,
    *,
    batch_size: int,
    seed: int,
    drop_remainder: bool = False,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    max_unreadable_fraction: float = 0.0,
    sampling: str = "uniform",
) -> Iterator[Batch]:
    """Endless shuffled and transformed batches, from `start_step` on.

    Batch `step` belongs to epoch `step // steps_per_epoch`. Every epoch is a new
    permutation of the source with newly drawn transforms. With `sampling` "balanced" an epoch is
    as many examples, each drawn for itself: its class uniformly, then one of the class's examples.

    In place of an unreadable image comes the source's next readable example, so that a batch
    remains a function of (seed, step); each is warned of once. Synthetic images are neither
    shuffled nor transformed: a few batches, not to be written to, are handed out in turn.

    Args:
      source: The examples.
      transform: Random transform of one example, such as `pad_crop_flip(4, True)`.
      batch_size: Size of a global batch.
      seed: 0 .. 2**32 - 1; all randomness is derived from it.
      drop_remainder: Leave out each epoch's smaller last batch; otherwise it is kept.
      start_step: Step of the first batch returned; reached without reading earlier ones.
      process_index: This process among those that train together.
      process_count: Their number; process p gets rows p*b/P to (p+1)*b/P of a batch of b.
      num_workers: Worker processes that read ahead; 0 reads in threads of this process.
        Closing or deleting the iterator ends them.
      max_unreadable_fraction: The iterator raises InputError once more distinct examples than
        this fraction of the source have turned out to be unreadable to this process.
      sampling: "uniform" shows every example once an epoch; "balanced" shows every class equally
        often in the mean, which needs a source with `labels`.

    Returns:
      An iterator over this process's rows: "image" uint8 [b, H, W, C], "label" int32 [b].

    Raises:
      InputError: sizes that do not fit together, a seed, step or fraction out of range, another
        sampling, or a balanced one of a source without labels.
    """
    check_choice("sampling", sampling, ("uniform", "balanced"))
    balanced = class_balanced(source) if sampling == "balanced" else None
    steps = steps_per_epoch(len(source), batch_size, drop_remainder)
    sizes = {batch_size}
    if not drop_remainder:
        sizes.add(len(source) - (steps - 1) * batch_size)
    _check_shares(sizes, process_index, process_count)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; it must lie in 0 .. 2**32 - 1.")
    if start_step < 0:
        raise InputError(f"start_step is {start_step}; it must be 0 or more.")
    allowance = Allowance(max_unreadable_fraction, len(source))
    if isinstance(source, SyntheticSource):
        return synthetic_train_batches(
            source,
            batch_size=batch_size,
            seed=seed,
            steps_per_epoch=steps,
            start_step=start_step,
            process_index=process_index,
            process_count=process_count,
        )
    import grain

    from shift_jax.data.loading.process_rows import ProcessRows

    rows = ProcessRows(
        grain.MapDataset.source(range(len(source)))
        .seed(seed)
        .shuffle()
        .random_map(TrainReader(source, transform, allowance, balanced)),
        batch_size=batch_size,
        drop_remainder=drop_remainder,
        process_index=process_index,
        process_count=process_count,
    )
    batches = rows.batch(batch_size // process_count, batch_fn=stack)
    return read_ahead(batches.repeat()[start_step:], num_workers, allowance)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
    max_unreadable_fraction: float = 0.0,
) -> Iterator[Batch]:
    """Every example once, in order, in batches of one size.

    The last batch is filled up with black images of label 0 whose mask is False: weight
    all sums by the mask to evaluate exactly. So are unreadable images, each of which is warned
    of; synthetic images are one batch again and again, not to be written to.

    Args:
      source: The examples.
      batch_size: Size of a global batch.
      process_index: This process among those that evaluate together.
      process_count: Their number; process p gets rows p*b/P to (p+1)*b/P of each batch.
      num_workers: As for `train_batches`.
      max_unreadable_fraction: As for `train_batches`.

    Returns:
      An iterator over this process's rows, b = batch_size / process_count: "image" uint8
      [b, H, W, C], "label" int32 [b], "mask" bool [b].

    Raises:
      InputError: sizes that do not fit together, or a fraction out of range.
    """
    steps = steps_per_epoch(len(source), batch_size, drop_remainder=False)
    _check_shares({batch_size}, process_index, process_count)
    allowance = Allowance(max_unreadable_fraction, len(source))
    if isinstance(source, SyntheticSource):
        return synthetic_eval_batches(
            source,
            batch_size=batch_size,
            process_index=process_index,
            process_count=process_count,
        )
    import grain

    from shift_jax.data.loading.process_rows import ProcessRows

    rows = ProcessRows(
        grain.MapDataset.source(EvalReader(source, steps * batch_size)),
        batch_size=batch_size,
        drop_remainder=False,
        process_index=process_index,
        process_count=process_count,
    )
    batches = rows.batch(batch_size // process_count, batch_fn=stack)
    return read_ahead(batches, num_workers, allowance)


def _check_shares(batch_sizes: set[int], process_index: int, process_count: int) -> None:
    if not 0 <= process_index < process_count:
        raise InputError(
            f"process_index is {process_index}; with process_count {process_count} it must lie "
            f"in 0 .. {process_count - 1}."
        )
    for size in sorted(batch_sizes, reverse=True):
        if size % process_count:
            raise InputError(
                f"A batch of {size} examples can not be shared equally by {process_count} "
                "processes; choose a batch_size divisible by their number, and drop_remainder "
                "if it is the last batch of an epoch that does not divide."
            )
