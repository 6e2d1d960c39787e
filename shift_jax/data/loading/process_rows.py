"""A Grain dataset that gives each process its rows of every global batch. Needs Grain."""

import math

import grain


class ProcessRows(grain.MapDataset):
    """The examples of one process, in the order in which plain batching makes its batches.

    P processes share a global batch of b examples in contiguous pieces: process p gets rows p*b/P
    to (p+1)*b/P. Batching this dataset by `batch_size / P` yields exactly those pieces, and the
    pieces of all processes together are the global batch. Grain's own slicing cannot express this:
    it has strides and one contiguous shard, but not a piece of each batch.

    Each epoch is batched separately, so its last batch may be smaller; b is then the size of that
    batch. Like all of Grain's map datasets, this one has `len(self)` elements an epoch and accepts
    indices of later epochs, which it maps to the same epoch of the parent.
    """

    def __init__(
        self,
        parent: grain.MapDataset,
        *,
        batch_size: int,
        drop_remainder: bool,
        process_index: int,
        process_count: int,
    ):
        """Takes rows from `parent`, whose batch sizes must be divisible by `process_count`.

        Args:
          parent: Examples in global order.
          batch_size: Size of a global batch.
          drop_remainder: Whether to drop an epoch's smaller last batch.
          process_index: p, the index of this process.
          process_count: P, the number of processes.
        """
        super().__init__(parent)
        self._batch_size = batch_size
        self._process_index = process_index
        self._process_count = process_count
        num_batches = len(parent) / batch_size
        num_batches = math.floor(num_batches) if drop_remainder else math.ceil(num_batches)
        self._length = min(num_batches * batch_size, len(parent)) // process_count

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index):
        if isinstance(index, slice):
            return self.slice(index)
        epoch, index = divmod(index, self._length)
        batch, row = divmod(index, self._batch_size // self._process_count)
        start = batch * self._batch_size
        size = min(self._batch_size, self._length * self._process_count - start)
        start += self._process_index * (size // self._process_count)
        return self._parent[epoch * len(self._parent) + start + row]
