"""Stopping a run from outside without losing work."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np


class EvaluationStoppedError(Exception):
    """The run was asked to stop during an evaluation."""


class StoppedError(Exception):
    """The run stopped before its end, with its checkpoint saved.

    Attributes:
      step: number of steps taken and saved.
      exit_status: 128 + the signal's number, as a shell reports it.
    """

    def __init__(self, step: int, signal_number: int | None):
        by = f" by {signal.Signals(signal_number).name}" if signal_number else ""
        saved = "with its checkpoint saved" if step else "before there was anything to save"
        super().__init__(
            f"Stopped{by} at step {step} {saved}; the same command resumes from there."
        )
        self.step = step
        self.exit_status = 128 + (signal_number or signal.SIGTERM)


class StopRequest:
    """Turns SIGTERM and SIGINT (Ctrl-C), while entered, from killing the process into a request.

    A second signal acts as usual. Outside the main thread, where Python allows no handlers, it
    catches nothing.

    Several processes must stop at the same step, whichever of them was asked to. `mark` adds the
    request of each process to its batches, and the compiled steps return whether there is any.

    Attributes:
      signal: number of the signal received, or None.
      is_agreed: whether the run is to stop: at once in a run of one process, otherwise once a step
        has passed the request on to all processes.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.signal: int | None = None
        self._heard = False
        self._previous: dict[int, Any] = {}

    @property
    def is_agreed(self) -> bool:
        return self._heard if jax.process_count() > 1 else self.signal is not None

    def mark(self, batches: Iterable[dict]) -> Iterator[dict]:
        """Yields the batches; in a run of several processes it adds "stop", bool [B]."""
        for batch in batches:
            if jax.process_count() > 1:
                size = len(next(iter(batch.values())))
                batch = batch | {"stop": np.full(size, self.signal is not None)}
            yield batch

    def listen(self, values: dict) -> dict:
        """Takes "stop" out of the results of a step and remembers it; returns the rest."""
        self._heard |= bool(values.get("stop", False))
        return {key: value for key, value in values.items() if key != "stop"}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in self._SIGNALS:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame) -> None:
        self.signal = number
        signal.signal(number, self._previous[number])
