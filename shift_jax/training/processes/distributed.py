"""Joining the other processes of a run, on one host or many."""

from __future__ import annotations

import os
import socket

import jax

from shift_jax.errors import InputError
from shift_jax.training.processes.collectives import broadcast_from_process_0
from shift_jax.training.processes.peers import PeerMonitor, end_after, outlive_abort

# Seconds of silence after which JAX's own service ends a run; `peers` is faster.
_HEARTBEAT_TIMEOUT = 40
_SHUTDOWN_TIMEOUT = 60

_on_abort = None  # Keeps the handler from being freed.


def initialize_from_flags(
    distributed: str = "auto",
    *,
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> PeerMonitor | None:
    """Joins the run's other processes, if the command line or the environment names any.

    Args:
      distributed: "auto" asks the environment; "always" and "never" do not.
      coordinator_address, num_processes, process_id: see `initialize_distributed`; give all three
        or none.

    Returns:
      The monitor of the other processes, or None in a run of one.

    Raises:
      InputError: flags that contradict each other, or processes that cannot be reached.
    """
    given = {
        "coordinator_address": coordinator_address,
        "num_processes": num_processes,
        "process_id": process_id,
    }
    named = [name for name, value in given.items() if value is not None]
    if distributed == "never" or (
        distributed == "auto" and not named and not _environment_has_several()
    ):
        if named:
            raise InputError(f"--{named[0]} needs --distributed=auto or always, and not never.")
        return None
    if given["num_processes"] == 1 and not given["process_id"]:
        return None
    if named and len(named) < len(given):
        missing = next(name for name in given if name not in named)
        raise InputError(
            f"--{named[0]} was given without --{missing}: give --coordinator_address, "
            "--num_processes and --process_id together, or none of them."
        )
    if named and not 0 <= given["process_id"] < given["num_processes"]:
        raise InputError(
            f"--process_id is {given['process_id']}, expected a number from 0 to "
            f"{given['num_processes'] - 1}, one below --num_processes."
        )
    return initialize_distributed(**given)


def initialize_distributed(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
) -> PeerMonitor | None:
    """Joins the run's other processes; call it before any other function of JAX.

    Args:
      coordinator_address: "HOST:PORT" of process 0; None lets JAX ask the environment.
      num_processes: number of processes.
      process_id: number of this process, from 0.

    Returns:
      The monitor of the other processes, or None if there are none.

    Raises:
      InputError: the other processes cannot be reached.
    """
    # A preemption notice is a SIGTERM, which StopRequest receives and the train step passes on to
    # all processes. JAX's own service would intercept the signal.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=_HEARTBEAT_TIMEOUT,
            shutdown_timeout_seconds=_SHUTDOWN_TIMEOUT,
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"The run's processes cannot find each other ({' '.join(str(error).split())}): give "
            "--coordinator_address=HOST:PORT, --num_processes and --process_id, and start all."
        ) from error
    index, count = jax.process_index(), jax.process_count()
    if count == 1:
        return None
    server = _listen() if index == 0 else None
    host, port = _address(server, coordinator_address) if server else ("", 0)
    host, _, port = broadcast_from_process_0(f"{host} {port}").partition(" ")
    global _on_abort
    try:
        peers = PeerMonitor(index, count, server or (host, int(port)), end_after(index, count))
    except OSError as error:
        raise InputError(
            f"Process {index} cannot reach process 0 at {host}:{port} ({error.strerror or error}): "
            "give a --coordinator_address that all hosts can reach, and open their firewalls."
        ) from error
    _on_abort = outlive_abort(peers.lost)
    return peers


def is_initialized() -> bool:
    """Whether this process has joined others through JAX."""
    return jax.distributed.is_initialized()


def _environment_has_several() -> bool:
    """Whether a launcher has announced several processes."""
    several = any(
        os.environ.get(name, "1").isdigit() and int(os.environ.get(name, "1")) > 1
        for name in ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")
    )
    hosts = os.environ.get("TPU_WORKER_HOSTNAMES", "")
    return (
        several
        or "," in hosts
        or "JAX_COORDINATOR_ADDRESS" in os.environ
        or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ
    )


def _listen() -> socket.socket:
    return socket.create_server(("", 0))


def _address(server: socket.socket, coordinator_address: str | None) -> tuple[str, int]:
    """(host, port) at which the other processes reach `server`."""
    port = server.getsockname()[1]
    if coordinator_address:
        return coordinator_address.rpartition(":")[0], port
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing; the system only chooses the interface that leads outside.
            probe.connect(("192.0.2.1", 9))
            return probe.getsockname()[0], port
        except OSError:
            return socket.gethostname(), port
