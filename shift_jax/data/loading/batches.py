"""Batches: a pure function of (seed, step) for training, every example once for evaluation.

Shuffling and random transforms see the GLOBAL example index, before processes take their rows and
workers take their share. The step is therefore the whole state of the input pipeline: nothing needs
saving, and the number of workers and hosts changes no image.

A script that asks for workers (`num_workers` > 0) needs the usual `if __name__ == "__main__":`,
since worker processes import it again.
"""

import math

from shift_jax.data.augment.transforms import Transform
from shift_jax.data.decode.unreadable import Allowance
from shift_jax.data.loading.read_ahead import Batches, read_ahead
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
    """Returns the number of global batches in one pass over the data, at least 1.

    Args:
      num_examples: Size of the dataset.
      batch_size: Size of a global batch.
      drop_remainder: Whether to drop a smaller last batch.

    Raises:
      InputError: a size is below 1, or no batch is left.
    """
    if num_examples < 1:
        raise InputError(f"The dataset has {num_examples} examples; it needs at least 1.")
    if batch_size < 1:
        raise InputError(f"batch_size is {batch_size}; it must be at least 1.")
    if not drop_remainder:
        return math.ceil(num_examples / batch_size)
    if batch_size > num_examples:
        raise InputError(
            f"batch_size {batch_size} is larger than the dataset ({num_examples} examples), so "
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
) -> Batches:
    """Yields shuffled and transformed batches without end, starting at `start_step`.

    Batch `step` belongs to epoch `step // steps_per_epoch`. Each epoch is a new permutation of the
    source with newly drawn transforms. If `sampling` is "balanced", an epoch has the same number of
    examples, each drawn independently: first a class, uniformly, then one of its examples.

    The next readable example of the source replaces an unreadable image, so that a batch remains a
    function of (seed, step). Each unreadable image is logged once. Synthetic images are neither
    shuffled nor transformed: the iterator cycles through a few batches, which are read-only.

    Args:
      source: The examples.
      transform: Random transform of one example, such as `pad_crop_flip(4, True)`.
      batch_size: Size of a global batch.
      seed: In 0 .. 2**32 - 1; all random numbers derive from it.
      drop_remainder: Whether to drop each epoch's smaller last batch.
      start_step: Step of the first batch. Earlier batches are not read.
      process_index: Index of this process among those that train together.
      process_count: Their number; process p gets rows p*b/P to (p+1)*b/P of a batch of b.
      num_workers: Worker processes that read ahead; 0 reads in threads of this process.
        Closing or deleting the iterator ends them.
      max_unreadable_fraction: The iterator raises InputError when this process has met more
        distinct unreadable examples than this fraction of the source.
      sampling: "uniform" shows each example once an epoch. "balanced" shows all classes equally
        often on average, and needs a source with `labels`.

    Returns:
      An iterator over this process's rows: "image" uint8 [b, H, W, C], "label" int32 [b].

    Raises:
      InputError: the sizes do not fit together; the seed, step or fraction is out of range; the
        sampling is unknown, or is balanced for a source without labels.
    """
    check_choice("sampling", sampling, ("uniform", "balanced"))
    balanced = class_balanced(source) if sampling == "balanced" else None
    steps = steps_per_epoch(len(source), batch_size, drop_remainder)
    sizes = {batch_size}
    if not drop_remainder:
        sizes.add(len(source) - (steps - 1) * batch_size)
    _check_shares(sizes, process_index, process_count)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; it must be in 0 .. 2**32 - 1.")
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
) -> Batches:
    """Yields each example once, in order, in batches of one size.

    Black images with label 0 and a mask of False fill the last batch and replace unreadable images,
    each of which is logged: weight all sums by the mask to evaluate exactly. Synthetic images
    repeat a single read-only batch.

    Args:
      source: The examples.
      batch_size: Size of a global batch.
      process_index: Index of this process among those that evaluate together.
      process_count: Their number; process p gets rows p*b/P to (p+1)*b/P of each batch.
      num_workers: As for `train_batches`.
      max_unreadable_fraction: As for `train_batches`.

    Returns:
      An iterator over this process's rows, b = batch_size / process_count: "image" uint8
      [b, H, W, C], "label" int32 [b], "mask" bool [b].

    Raises:
      InputError: the sizes do not fit together, or the fraction is out of range.
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
            f"process_index is {process_index}; with process_count {process_count} it must be "
            f"in 0..{process_count - 1}."
        )
    for size in sorted(batch_sizes, reverse=True):
        if size % process_count:
            raise InputError(
                f"A batch of {size} examples does not divide evenly among {process_count} "
                "processes; choose a batch_size divisible by their number, and drop_remainder "
                "if only the last batch of an epoch does not divide."
            )
