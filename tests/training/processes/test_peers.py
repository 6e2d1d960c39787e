"""The watch over a run's processes: real connections, with all processes in this one."""

import contextlib
import os
import queue
import socket
import subprocess
import sys

import pytest

from shift_jax.training.processes.peers import _BEAT, _MESSAGE, PeerMonitor, _receive

# Seconds that a test waits for what should come at once, before it fails.
PATIENCE = 30


class Group:
    """So many processes, each with a queue of those it was told are lost."""

    def __init__(self, count, **times):
        server = socket.create_server(("127.0.0.1", 0))
        self.address = server.getsockname()
        self.losses = [queue.Queue() for _ in range(count)]
        self.peers = [
            PeerMonitor(
                index,
                count,
                self.address if index else server,
                self.losses[index].put,
                **({"silence": PATIENCE, "beat_every": PATIENCE} | times),
            )
            for index in range(count)
        ]

    def end(self, index):
        """What the system does when a process ends, however it does."""
        self.peers[index].lost.set()  # The dead tell nobody of what they have lost.
        for connection in list(self.peers[index]._connections.values()):
            connection.shutdown(socket.SHUT_RDWR)

    def watched(self, index, count):
        """Waits until a process watches so many others, by the time they have been heard."""
        while len(self.peers[index]._connections) < count:
            self.peers[index].lost.wait(0.001)


@pytest.fixture
def group():
    group = Group(3)
    group.watched(0, 2)
    return group


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_all_others_hear_of_the_one_that_is_gone(group, gone):
    group.end(gone)
    for index in {0, 1, 2} - {gone}:
        assert group.losses[index].get(timeout=PATIENCE) == gone
        assert group.peers[index].lost.is_set()


def test_a_loss_is_told_once(group):
    group.end(2)
    assert group.losses[0].get(timeout=PATIENCE) == 2
    group.end(1)
    # Its own thread has seen the end of the connection once nothing more can be read from it.
    with pytest.raises(queue.Empty):
        group.losses[0].get(timeout=0.2)


def test_nobody_is_missed_after_a_goodbye(group):
    group.peers[2].leave()
    group.end(2)
    group.end(1)  # Ends without one: the proof that the others were listening.
    assert group.losses[0].get(timeout=PATIENCE) == 1
    assert group.losses[0].empty()


def test_who_has_said_goodbye_misses_nobody(group):
    group.peers[0].leave()
    group.end(1)
    group.end(2)
    with pytest.raises(queue.Empty):
        group.losses[0].get(timeout=0.2)


def connect(address, greeting):
    connection = socket.create_connection(address, timeout=PATIENCE)
    connection.sendall(greeting)
    return connection


def process_0(**times):
    server = socket.create_server(("127.0.0.1", 0))
    losses = queue.Queue()
    return PeerMonitor(0, 2, server, losses.put, **times), server.getsockname(), losses


def test_silence_is_taken_for_death():
    _, address, losses = process_0(silence=0.1)
    with connect(address, _MESSAGE.pack(_BEAT, 1)):
        assert losses.get(timeout=PATIENCE) == 1


def test_signs_of_life_go_out_and_are_heard():
    _, address, losses = process_0(silence=2, beat_every=0.3)
    with connect(address, _MESSAGE.pack(_BEAT, 1)) as other:
        for _ in range(8):  # Longer than the silence that is borne.
            assert _receive(other) == (_BEAT, 0)
            other.sendall(_MESSAGE.pack(_BEAT, 1))
        assert losses.empty()


def test_strangers_that_connect_do_not_disturb():
    watch, address, losses = process_0()
    connect(address, b"").close()
    strangers = [connect(address, b"GET / HTTP/1.1\r\n"), connect(address, _MESSAGE.pack(_BEAT, 7))]
    other = connect(address, _MESSAGE.pack(_BEAT, 1))
    while not watch._connections:
        watch.lost.wait(0.001)
    assert set(watch._connections) == {1}
    for stranger in strangers:
        with contextlib.suppress(ConnectionResetError):
            assert stranger.recv(1) == b""
        stranger.close()
    assert losses.empty()
    other.close()
    assert losses.get(timeout=PATIENCE) == 1


def test_a_process_ends_though_nobody_reads_what_it_prints():
    reader, writer = os.pipe()
    os.close(reader)
    command = "from shift_jax.training.processes.peers import end_process as e; print(1); e(7)"
    buffered = {**os.environ, "PYTHONUNBUFFERED": ""}
    ended = subprocess.run(
        [sys.executable, "-c", command], stdout=writer, env=buffered, check=False
    )
    os.close(writer)
    assert ended.returncode == 7
