"""Reads batches ahead of their use, in threads or in worker processes. Needs Grain."""

import multiprocessing
import os
import signal
import threading
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shift_jax.data.decode.unreadable import Allowance, UnreadableCount
from shift_jax.data.loading.reading import UNREADABLE
from shift_jax.errors import InputError

if TYPE_CHECKING:
    import grain

Batch = dict[str, np.ndarray]


class Batches(Iterator[Batch], Protocol):
    """An iterator over batches whose threads and workers end when it is closed."""

    def close(self) -> object:
        """Ends the iteration."""
        ...


# Grain's defaults (16 threads, 500 elements) are meant for single examples; our elements are whole
# batches, each made by one thread. A buffer below the number of threads would leave some idle.
_READ_THREADS = 4
_READ_THREADS_PER_WORKER = 2
# Finished batches on their way to the parent.
_BUFFERED_BATCHES_PER_WORKER = 1


def read_ahead(dataset: "grain.MapDataset", num_workers: int, allowance: Allowance) -> Batches:
    """Iterates over batches made in threads or in worker processes.

    Args:
      dataset: Batches from `reading.stack`.
      num_workers: Worker processes; 0 reads in threads of this process.
      allowance: How many unreadable examples the batches may report.

    Returns:
      The iterator. Closing or deleting it ends its threads and workers.

    Raises:
      InputError: `num_workers` is negative, or workers cannot start here; from the iterator, there
        are too many unreadable examples.
    """
    if num_workers < 0:
        raise InputError(f"num_workers is {num_workers}; it must be 0 or more.")
    # multiprocessing makes this test, too, but only after Grain has started threads and queues,
    # whose errors would bury the reason.
    if num_workers and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            "A worker process imported the script, which asked for workers again; put the calls of "
            'the script under if __name__ == "__main__": or set num_workers to 0.'
        )
    import grain
    from absl import flags

    # Grain keeps its settings in absl flags, which nobody has parsed unless absl's app.run has.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
    threads = _READ_THREADS_PER_WORKER if num_workers else _READ_THREADS
    batches = dataset.to_iter_dataset(
        grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    ).mp_prefetch(
        grain.MultiprocessingOptions(
            num_workers=num_workers, per_worker_buffer_size=_BUFFERED_BATCHES_PER_WORKER
        ),
        _start_worker,
    )
    return _ReadAhead(batches, UnreadableCount(allowance), copy=num_workers > 0)


def _start_worker(worker_index: int, worker_count: int) -> None:
    """Makes a worker end together with its parent, however that ends, and at no other time."""
    del worker_index, worker_count
    # Terminals and schedulers send signals to workers, too, but only the parent should end them.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="end-with-parent", daemon=True).start()


def _end_with_parent() -> None:
    """Waits until the parent is gone, even if it was killed, and ends this process at once.

    Grain's loop would otherwise run forever. After the last worker, multiprocessing's resource
    tracker, which is a separate process, frees the shared memory that is left.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None  # This runs in a worker.
    parent.join()
    os._exit(1)


class _ReadAhead:
    """Iterates over batches and counts their unreadable examples.

    Grain's threads and workers end on `close()`, on deletion and at exit.
    """

    def __init__(self, batches: "grain.IterDataset", unreadable: UnreadableCount, copy: bool):
        self._unreadable = unreadable
        self._copy = copy
        # The list lets the finalizer release the iterator without keeping self alive. If only the
        # interpreter's teardown released it, Grain's shared memory would leak.
        self._iterators = [iter(batches)]
        self.close = weakref.finalize(self, _end, self._iterators)

    def __iter__(self) -> Batches:
        return self

    def __next__(self) -> Batch:
        if not self._iterators:
            raise StopIteration
        try:
            batch = next(self._iterators[0])
            self._unreadable.add(batch.pop(UNREADABLE))
        except Exception:
            self.close()
            raise
        # Workers pass shared memory. Copying frees it now, rather than with the batch.
        return {key: np.array(value) for key, value in batch.items()} if self._copy else batch


def _end(iterators: list["grain.DatasetIterator"]) -> None:
    iterators.pop().close()
