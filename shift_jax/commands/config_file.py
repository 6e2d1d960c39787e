"""Reads a config file and the overrides of its fields, with one sentence for each mistake."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from shift_jax.config import flatten
from shift_jax.errors import InputError, did_you_mean
from shift_jax.files import usable_path


def load_config(file: str, overrides: Sequence[str]) -> ConfigDict:
    """Returns the config of a file.

    Args:
      file: its path, perhaps with ":OPTIONS", the argument of its `get_config`.
      overrides: "--config.FIELD=VALUE" each.

    Raises:
      InputError: a file that cannot be loaded, a field that it lacks or a value of another type.
    """
    arguments = ["shift-jax", f"--config={file}", *overrides]
    sys.modules.pop("config_config", None)  # Its name for every file, with all older definitions.
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    parse_flags(values, arguments)
    return values.config


def parse_flags(values: flags.FlagValues, arguments: list[str]) -> None:
    """Parses arguments by absl's flags, --config with its overrides among them.

    Raises:
      InputError: a mistake in the arguments or in the config file.
    """
    for each in arguments:
        if each != each.encode("utf-8", "ignore").decode():
            raise InputError(f"{each[:80]!a} is not UTF-8: write the argument in UTF-8.")
    arguments = _with_usable_path(arguments)
    try:
        rest = values(arguments)
    except InputError:
        raise
    except (
        flags.Error,
        AttributeError,
        KeyError,
        SyntaxError,
        ImportError,
        ValueError,
        # Of Python's parser, about a value with thousands of parentheses.
        MemoryError,
        RecursionError,
    ) as error:
        raise InputError(_explain(error, arguments)) from error
    if len(rest) > 1:
        raise InputError(f"{rest[1]!r} is not a flag: flags begin with --, as in --workdir=DIR.")
    # ml_collections notices only when the config is used that the file is missing.
    if "config" in values and values["config"].present and type(values.config) is not ConfigDict:
        path = _config_argument(arguments).split(":")[0]
        raise InputError(
            f"There is no config file {path}: expected one such as configs/quickstart.py."
        )


def _with_usable_path(arguments: list[str]) -> list[str]:
    """Expands ~ in the path of --config; raises InputError for one that cannot be."""
    given = _config_argument(arguments)
    path, colon, options = given.partition(":")
    if not path:
        return arguments
    usable = f"{usable_path('--config', path)}{colon}{options}"
    pattern = rf"(--?config=)?{re.escape(given)}"
    return [
        f"{match[1] or ''}{usable}" if (match := re.fullmatch(pattern, each)) else each
        for each in arguments
    ]


def _explain(error: BaseException, arguments: list[str]) -> str:
    """One sentence for what absl and ml_collections raise."""
    innermost = error
    while inner := innermost.__cause__ or innermost.__context__:
        innermost = inner
        # A config file's own sentence, before ml_collections wraps it in its stack trace.
        if isinstance(innermost, InputError) and "Traceback" not in str(innermost):
            return str(innermost)
    path = _config_argument(arguments)
    if "Traceback" in str(error) or isinstance(error, SyntaxError | ImportError):
        reason = " ".join(str(innermost).split())
        return f"The config {path} cannot be loaded ({type(innermost).__name__}: {reason})."
    if isinstance(error, AttributeError | KeyError | ValueError | MemoryError | RecursionError):
        return _unknown_field(path, arguments) or (
            f"The config {path} cannot be loaded ({type(error).__name__}: {_shortened(error)})."
        )
    return _shortened(error)


def _shortened(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 500 else f"{text[:400]} … {text[-50:]}"


def _unknown_field(path: str, arguments: list[str]) -> str | None:
    """The sentence for the first override that names no field of the config at `path`."""
    try:
        fields = flatten(
            config_flags.config_flags.ConfigFileFlagParser("config").parse(path).to_dict()
        )
    except AttributeError:  # Not a config file at all: it has no get_config.
        return None
    for argument in arguments:
        override = re.match(r"--(?:no)?config\.([^=]+)", argument)
        if override and override[1] not in fields:
            return (
                f"The config has no field {override[1][:80]!r}.{did_you_mean(override[1], fields)} "
                f"Its fields are {', '.join(fields)}."
            )
    return None


def _config_argument(arguments: list[str]) -> str:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if re.fullmatch(r"--?config", argument):
            return following
        if match := re.fullmatch(r"--?config=(.*)", argument):
            return match[1]
    return ""
