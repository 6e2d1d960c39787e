"""How every command ends: the exit status, and one sentence on stderr where something went wrong.

0: all went well. 1: a disk failed, is full or must not be written. 2: bad input. 75: another
process of the run is gone; starting again may help. 130 and 143: stopped by Ctrl-C and SIGTERM,
with what was done saved. 141: nobody reads the output any more, as after `| head`. Any other
exception is a bug and keeps its stack trace.
"""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
import traceback
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from logging import Formatter, LogRecord

from shift_jax.errors import STORAGE_ERRORS, InputError, StorageError

USAGE_STATUS = 2

# Seconds in which the watch over the other processes finds the cause of an exception.
_PEERS_VERDICT = 30


def run(parse: Callable[[], Namespace], main: Callable[[Namespace], object]) -> int:
    """Calls `main` with the options that `parse` returns, and returns the exit status.

    Options with `distributed`, see `CommandLine.add_process_flags`, may make this process one of
    several.
    """
    prepare_streams()
    _set_up_logging()
    parsed = []
    status, _ = _status_of(lambda: parsed.append(parse()))
    if not parsed:  # After a mistake, or after --help.
        return status
    call = partial(main, *parsed)
    if "distributed" in parsed[0]:
        return _run_with_others(call, parsed[0])
    return _status_of(call)[0]


def prepare_streams() -> None:
    """Makes standard streams of all: /dev/null of one that the caller has closed by `2>&-`."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number, which is this one: no file that is opened later gets it, and
            # with it what libraries written in C print.
            os.open(os.devnull, os.O_RDWR)
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(null, "r" if name == "stdin" else "w"))
    # Names of files that the terminal cannot show are escaped, as on stderr.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _set_up_logging() -> None:
    from absl import logging

    # Before TensorFlow, which TensorBoard's writer needs, is imported; it only writes files here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.set_verbosity(logging.WARNING)
    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.setFormatter(Formatter("%(levelname)s: %(message)s"))
    handler.addFilter(_is_worth_saying)
    sys.unraisablehook = _print_unraisable


def _is_worth_saying(record: LogRecord) -> bool:
    message = record.getMessage()
    if "OpenCV" in message:  # TFDS recommends it, once in each process.
        return False
    # An error of a save in the background is raised as well; Orbax logs it in addition, over
    # pages, and asyncio once more for each array that was not written.
    is_raised_too = record.exc_info and "/orbax/" in record.pathname
    return not is_raised_too and "exception was never retrieved" not in message


def _print_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    # TensorStore's threads report each write that failed after Orbax gave up the save this way.
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _run_with_others(call: Callable[[], object], options: Namespace) -> int:
    """Calls `call` as one of the processes that the options and the environment name."""
    from shift_jax.training.processes.collectives import barrier
    from shift_jax.training.processes.distributed import initialize_from_flags, is_initialized
    from shift_jax.training.processes.peers import end_process

    try:
        peers = initialize_from_flags(
            options.distributed,
            coordinator_address=options.coordinator_address,
            num_processes=options.num_processes,
            process_id=options.process_id,
        )
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        # Once JAX has joined the processes, it would wait for the others at the end.
        return end_process(USAGE_STATUS) if is_initialized() else USAGE_STATUS
    if peers is None:
        return _status_of(call)[0]
    status, all_end = 1, False
    try:
        status, all_end = _status_of(call)
        if all_end:
            barrier()
    except Exception:
        all_end = False
        # A collective operation fails when a peer is gone; the watch then says so and ends us.
        if not peers.lost.wait(_PEERS_VERDICT):
            traceback.print_exc()
        else:
            threading.Event().wait()
    if all_end:
        peers.leave()
        return status
    # At once: JAX would wait for the others, who wait for this one.
    end_process(status)
    return status


def _status_of(call: Callable[[], object]) -> tuple[int, bool]:
    """Returns the exit status of `call`, and whether all processes of the run end with it."""
    try:
        status = _returned_status(call)
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still in the buffer has nowhere to go when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE, False
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_STATUS, False
    except StorageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1, False
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        where = error.filename or "The disk"
        print(
            f"error: {where} cannot be used ({error.strerror}): make room, fix it or choose "
            "another place; the same command continues from what is saved.",
            file=sys.stderr,
        )
        return 1, False
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 128 + signal.SIGINT, False
    except Exception as error:
        # Of a stop that was asked for, see `StoppedError`: all that was done is saved.
        status = getattr(error, "exit_status", None)
        if status is None:
            raise
        print(error, file=sys.stderr)
        return status, True
    return status, True


def _returned_status(call: Callable[[], object]) -> int:
    try:
        call()
    except SystemExit as end:  # As after --help.
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    return 0
