"""From a source to batches: sampling, reading, worker processes, the rows of a process."""
