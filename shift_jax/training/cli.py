"""What the command lines share: flags read, one sentence for each mistake, an exit status."""

from __future__ import annotations

import errno
import os
import re
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Sequence
from logging import Formatter, LogRecord

from absl import app, flags, logging

from shift_jax.config import literal
from shift_jax.errors import InputError, did_you_mean
from shift_jax.training.processes.stopping import StoppedError
from shift_jax.training.runs.workdir import flatten

USAGE_STATUS = 2

STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES)
"""Of a disk that failed, is full or must not be written, which end a command with status 1."""
# Seconds in which the watch over the other processes finds the cause of an exception.
_PEERS_VERDICT = 30


class StorageError(Exception):
    """One of `STORAGE_ERRORS` in a command's own sentence."""


def run(main: Callable[[], object], argv: Sequence[str] | None = None) -> int:
    """Parses the flags, calls `main` and returns the exit status.

    0 when all went well; 1 when a disk failed or is full and 2 after bad input, told on stderr in
    one sentence; 75 when another process of the run is gone; 128 + signal after a stop that saved,
    or when nobody reads what is printed any more. Any other exception is a bug and keeps its stack
    trace.
    """
    # Before TensorFlow, which TensorBoard's writer needs, is imported; it only writes files here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.set_verbosity(logging.WARNING)
    logging.use_absl_handler()
    handler = logging.get_absl_handler()
    handler.setFormatter(Formatter("%(levelname)s: %(message)s"))
    handler.addFilter(_is_worth_saying)
    sys.unraisablehook = _print_unraisable
    try:
        _parse_flags(list(sys.argv if argv is None else argv))
        if "coordinator_address" in flags.FLAGS:
            return _run_with_others(main)
        return _run(main)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_STATUS


def _is_worth_saying(record: LogRecord) -> bool:
    message = record.getMessage()
    if "OpenCV" in message:  # TFDS recommends it, once in each process.
        return False
    # An error of a save in the background is raised too: Orbax tells it, in pages, by the way, and
    # asyncio once more for each array that was not written either.
    told_anyway = record.exc_info and "/orbax/" in record.pathname
    return not told_anyway and "exception was never retrieved" not in message


def _print_unraisable(unraisable: sys.UnraisableHookArgs) -> None:
    # So TensorStore's threads tell of each write that failed after Orbax had given up the save.
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def fields(texts: Iterable[str]) -> dict[str, object]:
    """Returns FIELD=VALUE texts as a dict, values being Python literals where they are some.

    Raises:
      InputError: a text without "=".
    """
    for text in texts:
        if "=" not in text:
            raise InputError(f"--set={text} has no value: expected --set=FIELD=VALUE.")
    return {key: literal(value) for key, _, value in (text.partition("=") for text in texts)}


def define_process_flags() -> None:
    """Defines the flags of a command that may run as several processes."""
    flags.DEFINE_enum(
        "distributed",
        "auto",
        ("auto", "always", "never"),
        "Whether this process is one of several: auto asks the three flags below and what SLURM, "
        "Open MPI, GKE and JAX_COORDINATOR_ADDRESS say; always lets JAX find the others, as on the "
        "hosts of a Cloud TPU slice.",
    )
    flags.DEFINE_string("coordinator_address", None, "HOST:PORT of process 0, the same for all.")
    flags.DEFINE_integer("num_processes", None, "How many processes there are.", lower_bound=1)
    flags.DEFINE_integer("process_id", None, "Number of this process, from 0.", lower_bound=0)


def _run_with_others(main: Callable[[], object]) -> int:
    """Runs `main` as one of the processes that the flags and the environment tell of."""
    from shift_jax.training.processes.collectives import barrier
    from shift_jax.training.processes.distributed import initialize_from_flags, is_initialized
    from shift_jax.training.processes.peers import end_process

    try:
        peers = initialize_from_flags()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        # Once JAX has joined the processes, it would wait for the others at the end.
        return end_process(USAGE_STATUS) if is_initialized() else USAGE_STATUS
    if peers is None:
        return _run(main)
    status, all_end = 1, False
    try:
        status, all_end = _status_of(main)
        if all_end:
            barrier()
    except Exception:
        all_end = False
        # A collective operation fails when a peer is gone; the watch then tells so and ends us.
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


def _run(main: Callable[[], object]) -> int:
    return _status_of(main)[0]


def _status_of(main: Callable[[], object]) -> tuple[int, bool]:
    """Calls `main`; returns the exit status, and whether all processes of the run end with it."""
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:  # As by `| head`, which has read enough.
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
            f"error: {where} cannot be used ({error.strerror}): make room, mend it or choose "
            "another place; the same command goes on from what is saved.",
            file=sys.stderr,
        )
        return 1, False
    except StoppedError as stop:
        print(stop, file=sys.stderr)
        return stop.exit_status, True
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 128 + signal.SIGINT, False
    return 0, True


def _parse_flags(argv: list[str]) -> None:
    app.define_help_flags()
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError, SyntaxError, ImportError) as error:
        raise InputError(_explain(error, argv)) from error
    if len(rest) > 1:
        raise InputError(f"{rest[1]!r} is not a flag: flags begin with --, as in --workdir=DIR.")
    if "config" in flags.FLAGS and flags.FLAGS["config"].present:
        from ml_collections import ConfigDict  # Here: commands without a config do without.

        # A config file that is missing is only noticed when the config is used.
        if not isinstance(flags.FLAGS.config, ConfigDict):
            path = _config_argument(argv).split(":")[0]
            raise InputError(
                f"There is no config file {path}: expected one such as configs/quickstart.py."
            )


def _explain(error: BaseException, argv: list[str]) -> str:
    """One sentence for what absl and ml_collections raise."""
    innermost = error
    while innermost.__cause__ or innermost.__context__:
        innermost = innermost.__cause__ or innermost.__context__
        # A config file's own sentence, before ml_collections wraps it in its stack trace.
        if isinstance(innermost, InputError) and "Traceback" not in str(innermost):
            return str(innermost)
    path = _config_argument(argv)
    if "Traceback" in str(error) or isinstance(error, SyntaxError | ImportError):
        reason = " ".join(str(innermost).split())
        return f"The config {path} cannot be loaded ({type(innermost).__name__}: {reason})."
    if isinstance(error, AttributeError | KeyError):
        return _unknown_field(path, argv) or (
            f"The config {path} cannot be loaded ({type(error).__name__}: {error})."
        )
    return " ".join(str(error).split())


def _unknown_field(path: str, argv: list[str]) -> str | None:
    """The sentence for the first override that names no field of the config at `path`."""
    from ml_collections.config_flags.config_flags import ConfigFileFlagParser

    try:
        fields = flatten(ConfigFileFlagParser("config").parse(path).to_dict())
    except AttributeError:  # Not a config file at all: it has no get_config.
        return None
    for argument in argv:
        override = re.match(r"--(?:no)?config\.([^=]+)", argument)
        if override and override[1] not in fields:
            return (
                f"The config has no field {override[1]!r}.{did_you_mean(override[1], fields)} "
                f"Its fields are {', '.join(fields)}."
            )
    return None


def _config_argument(argv: list[str]) -> str:
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if re.fullmatch(r"--?config", argument):
            return following
        if match := re.fullmatch(r"--?config=(.*)", argument):
            return match[1]
    return ""
