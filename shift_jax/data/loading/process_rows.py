"""The Grain step that gives each process its rows of every global batch. Needs Grain."""

import math

import grain


class ProcessRows(grain.MapDataset):
    """The examples of one process, in an order that plain batching turns into its batches.

    A global batch of b examples is shared by P processes in contiguous pieces: process p
    gets the rows p*b/P up to (p+1)*b/P. Batching this dataset by `batch_size / P` yields
    just those pieces, and the pieces of all processes joined are the global batch. Grain's
    own slicing can not say this: it knows strides and one contiguous shard, not a piece of
    every batch.

    Every epoch is batched on its own, so its last batch may be smaller; b is then that
    batch's own size. Like all of Grain's map datasets it has `len(self)` elements per
    epoch and takes indices of later epochs, which keep their number in the parent.
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
        """Takes rows of `parent`, whose batch sizes must be divisible by `process_count`.

        Args:
          parent: Examples in global order.
          batch_size: Size of a global batch.
          drop_remainder: Whether an epoch's smaller last batch is left out.
          process_index: p, this process.
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
