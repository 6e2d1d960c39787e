"""Monitoring of the processes of a run: when one of them is gone, the others end and say so.

A process that has lost a peer waits in a collective operation, for minutes or forever, and JAX ends
it without naming the peer. Here every process keeps a TCP connection to process 0. The operating
system closes the connections of a process that was killed; a machine that is gone sends no more
heartbeats.
"""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

EXIT_STATUS = 75
"""EX_TEMPFAIL of sysexits.h: starting again may help."""

# Seconds of silence after which a machine counts as dead, and seconds between heartbeats.
_SILENCE = 25.0
_BEAT_EVERY = 5.0
# Seconds that a process has to identify itself after connecting.
_GREETING = 5.0
# Seconds for the process's own message about the same failure, which is closer to the cause.
_GRACE = 3.0

_BEAT, _GOODBYE, _LOST = 0, 1, 2
_MESSAGE = struct.Struct("!BI")  # The kind of message, and the number of a process.


class PeerMonitor:
    """Connections to the other processes of a run.

    Args:
      index: number of this process.
      count: number of processes.
      server: the listening socket in process 0, its (host, port) in the others.
      on_loss: called once, in a thread, with the number of a process that ended without a goodbye.
      silence: seconds of silence after which a process counts as dead.
      beat_every: seconds between heartbeats.

    Attributes:
      lost: set when a process is gone.

    Raises:
      OSError: process 0 cannot be reached.
    """

    def __init__(
        self,
        index: int,
        count: int,
        server: socket.socket | tuple[str, int],
        on_loss: Callable[[int], object],
        *,
        silence: float = _SILENCE,
        beat_every: float = _BEAT_EVERY,
    ):
        self._index = index
        self._on_loss = on_loss
        self._silence = silence
        self._beat_every = beat_every
        self._lock = threading.Lock()
        self._leaving = False
        self.lost = threading.Event()
        self._connections: dict[int, socket.socket] = {}
        if isinstance(server, socket.socket):
            self._start(self._accept, server, count - 1)
        else:
            connection = socket.create_connection(server, timeout=silence)
            self._greet(connection)
            self._add(0, connection)
        self._start(self._beat)

    def leave(self) -> None:
        """Says goodbye, so that the end of this process alarms nobody."""
        with self._lock:
            self._leaving = True
        self._tell(_GOODBYE, self._index)

    def _greet(self, connection: socket.socket) -> None:
        connection.sendall(_MESSAGE.pack(_BEAT, self._index))

    @staticmethod
    def _start(function: Callable, *arguments) -> None:
        threading.Thread(target=function, args=arguments, daemon=True).start()

    def _accept(self, server: socket.socket, count: int) -> None:
        with server:
            while len(self._connections) < count:
                server.settimeout(2 * self._silence)
                try:
                    connection, _ = server.accept()
                except TimeoutError:
                    self._lose(min(set(range(1, count + 1)) - set(self._connections)))
                    return
                connection.settimeout(_GREETING)
                try:
                    message, process = _receive(connection)
                except OSError:
                    message = process = -1
                if message == _BEAT and 0 < process <= count and process not in self._connections:
                    self._add(process, connection)
                else:
                    connection.close()  # A stranger, such as a port scan.

    def _add(self, process: int, connection: socket.socket) -> None:
        connection.settimeout(self._silence)
        with self._lock:
            self._connections[process] = connection
        self._start(self._watch, process, connection)

    def _watch(self, process: int, connection: socket.socket) -> None:
        """Reads the messages of a process until it says goodbye or is gone."""
        try:
            while True:
                message, about = _receive(connection)
                if message == _GOODBYE:
                    return
                if message == _LOST:
                    self._lose(about)
        except OSError:
            self._lose(process)

    def _lose(self, process: int) -> None:
        with self._lock:
            if self._leaving or self.lost.is_set():
                return
            self.lost.set()
        if self._index == 0:
            self._tell(_LOST, process)
        self._on_loss(process)

    def _beat(self) -> None:
        while not self.lost.wait(self._beat_every):
            self._tell(_BEAT, self._index)

    def _tell(self, message: int, about: int) -> None:
        with self._lock:
            connections = list(self._connections.values())
        for connection in connections:
            try:
                connection.sendall(_MESSAGE.pack(message, about))
            except OSError:
                continue  # The thread that reads from this connection notices.


def _receive(connection: socket.socket) -> tuple[int, int]:
    data = b""
    while len(data) < _MESSAGE.size:
        more = connection.recv(_MESSAGE.size - len(data))
        if not more:
            raise ConnectionError("closed")
        data += more
    return _MESSAGE.unpack(data)


def outlive_abort(lost: threading.Event) -> Callable:
    """Lets the monitor end this process where JAX would abort it because process 0 is gone.

    JAX's client aborts within milliseconds, and a Python callback to prevent it crashes in C++.

    Args:
      lost: the `PeerMonitor`'s event. The abort goes ahead if it is not set within seconds.

    Returns:
      The handler of SIGABRT, to be kept from being freed.
    """

    @ctypes.CFUNCTYPE(None, ctypes.c_int)
    def on_abort(_number):
        if lost.wait(_GRACE):
            threading.Event().wait()

    # Python's own handlers would run in the main thread, after the abort.
    ctypes.CDLL(None).signal(signal.SIGABRT, on_abort)
    return on_abort


def end_process(status: int) -> NoReturn:
    """Ends this process and its data workers at once, even if threads wait for lost peers."""
    for worker in multiprocessing.active_children():
        worker.kill()
        worker.join()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # Such as a pipe that nobody reads any more.
            stream.flush()
    os._exit(status)


def end_after(index: int, count: int) -> Callable[[int], None]:
    """Returns an `on_loss` that reports the loss on stderr and ends process `index`."""

    def on_loss(process: int) -> None:
        threading.Event().wait(_GRACE)
        print(
            f"error: Process {process} of this run's {count} ended or cannot be reached, and "
            f"process {index} cannot continue: start all of them again; the run resumes from its "
            "newest checkpoint.",
            file=sys.stderr,
            flush=True,
        )
        end_process(EXIT_STATUS)

    return on_loss
