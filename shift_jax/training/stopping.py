"""Stopping a run from outside without losing its work."""

from __future__ import annotations

import signal
import threading


class StoppedError(Exception):
    """The run stopped before its end, after saving a checkpoint.

    Attributes:
      step: number of steps taken and saved.
      exit_status: 128 + the signal's number, as a shell reports it.
    """

    def __init__(self, step: int, signal_number: int | None):
        by = f" by {signal.Signals(signal_number).name}" if signal_number else ""
        super().__init__(
            f"Stopped{by} at step {step} with its checkpoint saved; the same command goes on "
            "from there."
        )
        self.step = step
        self.exit_status = 128 + (signal_number or signal.SIGTERM)


class StopRequest:
    """While entered, SIGTERM and SIGINT (Ctrl-C) ask for a stop instead of killing.

    A second signal acts as it would have without this. In a thread other than the main one, where
    Python allows no handlers, nothing is caught.

    Attributes:
      signal: number of the signal that came, or None.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.signal: int | None = None
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

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
