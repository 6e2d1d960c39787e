"""What the command lines share: flags read, one sentence for each mistake, an exit status."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence

from absl import flags, logging
from ml_collections import ConfigDict
from ml_collections.config_flags.config_flags import ConfigFileFlagParser

from shift_jax.errors import InputError, did_you_mean
from shift_jax.training.stopping import StoppedError
from shift_jax.training.workdir import flatten

USAGE_STATUS = 2


def run(main: Callable[[], object], argv: Sequence[str] | None = None) -> int:
    """Parses the flags, calls `main` and returns the exit status.

    0 when all went well; 2 after bad input, told on stderr in one sentence; 128 + signal after a
    stop that saved. Any other exception is a bug and keeps its stack trace.
    """
    # Before TensorFlow, which TensorBoard's writer needs, is imported; it only writes files here.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    logging.set_verbosity(logging.WARNING)
    logging.use_absl_handler()
    try:
        _parse_flags(list(sys.argv if argv is None else argv))
        main()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return USAGE_STATUS
    except StoppedError as stop:
        print(stop, file=sys.stderr)
        return stop.exit_status
    return 0


def _parse_flags(argv: list[str]) -> None:
    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, AttributeError, KeyError) as error:
        raise InputError(_explain(error, argv)) from error
    if len(rest) > 1:
        raise InputError(f"{rest[1]!r} is not a flag: flags begin with --, as in --workdir=DIR.")
    if "config" in flags.FLAGS and flags.FLAGS["config"].present:
        # A config file that is missing is only noticed when the config is used.
        if not isinstance(flags.FLAGS.config, ConfigDict):
            path = _config_argument(argv).split(":")[0]
            raise InputError(
                f"There is no config file {path}: expected one such as configs/quickstart.py."
            )


def _explain(error: BaseException, argv: list[str]) -> str:
    """One sentence for what absl and ml_collections raise."""
    cause: BaseException | None = error
    while cause is not None:
        # A config file's own InputError, before ml_collections wraps it in its stack trace.
        if isinstance(cause, InputError) and cause.__context__ is None:
            return str(cause)
        cause = cause.__context__
    if isinstance(error, AttributeError | KeyError):
        config = ConfigFileFlagParser("config").parse(_config_argument(argv))
        fields = flatten(config.to_dict())
        for argument in argv:
            override = re.match(r"--(?:no)?config\.([^=]+)", argument)
            if override and override[1] not in fields:
                return (
                    f"The config has no field {override[1]!r}."
                    f"{did_you_mean(override[1], fields)} Its fields are {', '.join(fields)}."
                )
    return " ".join(str(error).split())


def _config_argument(argv: list[str]) -> str:
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        if re.fullmatch(r"--?config", argument):
            return following
        if match := re.fullmatch(r"--?config=(.*)", argument):
            return match[1]
    return ""
