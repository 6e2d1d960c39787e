"""Batches: for training a pure function of (seed, step), for evaluation every example once.

Shuffling and random transforms see the GLOBAL example index, before a process takes its
rows and before any worker takes its share. The step is therefore the whole state of the
input: nothing needs saving, and the number of workers and hosts changes no image.

With workers (`num_workers` > 0) the calling script needs the usual
`if __name__ == "__main__":`, since worker processes import it again.
"""

import dataclasses
import math
import multiprocessing
import signal
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from shift_jax.data.sources import Example, Source
from shift_jax.data.transforms import Transform
from shift_jax.errors import InputError

if TYPE_CHECKING:
    import grain

Batch = dict[str, np.ndarray]

# Grain's defaults (16 threads, 500 elements) count examples; ours count whole batches.
_READ_THREADS = 2
_BUFFERED_BATCHES = 4
_BUFFERED_BATCHES_PER_WORKER = 2


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
) -> Iterator[Batch]:
    """Endless shuffled and transformed batches, from `start_step` on.

    Batch `step` belongs to epoch `step // steps_per_epoch`. Every epoch is a new
    permutation of the source with newly drawn transforms.

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

    Returns:
      An iterator over this process's rows: "image" uint8 [b, H, W, C], "label" int32 [b].

    Raises:
      InputError: sizes that do not fit together, or a seed or step out of range.
    """
    steps = steps_per_epoch(len(source), batch_size, drop_remainder)
    sizes = {batch_size}
    if not drop_remainder:
        sizes.add(len(source) - (steps - 1) * batch_size)
    _check_shares(sizes, process_index, process_count)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed is {seed}; it must lie in 0 .. 2**32 - 1.")
    if start_step < 0:
        raise InputError(f"start_step is {start_step}; it must be 0 or more.")
    import grain

    from shift_jax.data.process_rows import ProcessRows

    rows = ProcessRows(
        grain.MapDataset.source(source).seed(seed).shuffle().random_map(transform),
        batch_size=batch_size,
        drop_remainder=drop_remainder,
        process_index=process_index,
        process_count=process_count,
    )
    dataset = rows.batch(batch_size // process_count).repeat()[start_step:]
    return _read_ahead(dataset, num_workers)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    num_workers: int = 0,
) -> Iterator[Batch]:
    """Every example once, in order, in batches of one size.

    The last batch is filled up with black images of label 0 whose mask is False: weight
    all sums by the mask to evaluate exactly.

    Args:
      source: The examples.
      batch_size: Size of a global batch.
      process_index: This process among those that evaluate together.
      process_count: Their number; process p gets rows p*b/P to (p+1)*b/P of each batch.
      num_workers: As for `train_batches`.

    Returns:
      An iterator over this process's rows, b = batch_size / process_count: "image" uint8
      [b, H, W, C], "label" int32 [b], "mask" bool [b].

    Raises:
      InputError: sizes that do not fit together.
    """
    steps = steps_per_epoch(len(source), batch_size, drop_remainder=False)
    _check_shares({batch_size}, process_index, process_count)
    import grain

    from shift_jax.data.process_rows import ProcessRows

    rows = ProcessRows(
        grain.MapDataset.source(_Padded(source, steps * batch_size)),
        batch_size=batch_size,
        drop_remainder=False,
        process_index=process_index,
        process_count=process_count,
    )
    return _read_ahead(rows.batch(batch_size // process_count), num_workers)


@dataclasses.dataclass(frozen=True)
class _Padded:
    """A source with a mask, followed by masked black images up to `length` examples."""

    source: Source
    length: int

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        if index < len(self.source):
            return {**self.source[index], "mask": np.True_}
        blank = Example(image=np.zeros(self.source.image_shape, np.uint8), label=np.int32(0))
        return {**blank, "mask": np.False_}


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


def _read_ahead(dataset: "grain.MapDataset", num_workers: int) -> Iterator[Batch]:
    if num_workers < 0:
        raise InputError(f"num_workers is {num_workers}; it must be 0 or more.")
    # multiprocessing's own test, made before Grain starts threads and queues in a process
    # that is about to fail: its errors would bury the reason.
    if num_workers and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            "A worker process imported the script and asked for workers itself; put the script's "
            'calls under if __name__ == "__main__": or set num_workers to 0.'
        )
    import grain
    from absl import flags

    # Grain keeps its settings in absl flags, which only absl's app.run parses.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    batches = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=_READ_THREADS, prefetch_buffer_size=_BUFFERED_BATCHES)
    ).mp_prefetch(
        grain.MultiprocessingOptions(
            num_workers=num_workers, per_worker_buffer_size=_BUFFERED_BATCHES_PER_WORKER
        ),
        _ignore_interrupts,
    )
    return _ReadAhead(batches)


def _ignore_interrupts(worker_index: int, worker_count: int) -> None:
    """Leaves Ctrl-C, which a terminal sends to the workers too, to the process that ends them."""
    del worker_index, worker_count
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class _ReadAhead:
    """Iterates; ends Grain's threads and workers on `close()`, when dropped, and at exit."""

    def __init__(self, batches: "grain.IterDataset"):
        # In a list, so that the finalizer can let go of it without keeping self alive. Left to
        # the interpreter's teardown, Grain's shared memory would leak.
        self._iterators = [iter(batches)]
        self.close = weakref.finalize(self, _end, self._iterators)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._iterators:
            raise StopIteration
        try:
            batch = next(self._iterators[0])
        except Exception:
            self.close()
            raise
        # Workers hand over shared memory; a copy frees it now instead of with the batch.
        return {key: np.array(value) for key, value in batch.items()}


def _end(iterators: list["grain.DatasetIterator"]) -> None:
    iterators.pop().close()
