"""Models on a command line: `NAME --expansion=3 --width=0.5**0.5`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from shift_jax.config import literal
from shift_jax.errors import InputError, did_you_mean


def split_arguments(
    arguments: Sequence[str], options: Mapping[str, str | None]
) -> tuple[list[str], dict[str, str | None], dict[str, Any]]:
    """Splits a command line into positional arguments, options and arguments of a model.

    Args:
      arguments: as typed, without the program.
      options: the command's own `--key=value` and their defaults.

    Returns:
      The positional arguments; the options as strings; every other `--key=value`, its value read
      as a Python literal where it is one.

    Raises:
      InputError: a flag without a value.
    """
    names, own, others = [], dict(options), {}
    for argument in arguments:
        key, equals, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("-"):
            names.append(argument)
        elif not (argument.startswith("--") and key and equals):
            flag = f"--{key.lstrip('-') or 'key'}"
            raise InputError(f"{argument!r} has no value: expected {flag}=VALUE, without a blank.")
        elif key in own:
            own[key] = value
        elif key == "name":
            raise InputError("--name is no argument: the model's name stands alone.")
        else:
            others[key] = literal(value)
    return names, own, others


def split_options(
    arguments: Sequence[str], options: Mapping[str, str | None], help_text: str
) -> tuple[list[str], dict[str, str | None]]:
    """Splits the command line of a command without a model, as `split_arguments` does.

    Args:
      arguments: as typed, without the program.
      options: the command's own `--key=value` and their defaults.
      help_text: what --help and -h print.

    Returns:
      The positional arguments, and the options as strings.

    Raises:
      InputError: a flag without a value, or one that the command does not have.
      SystemExit: with status 0, after the help.
    """
    if {"--help", "-h"} & set(arguments):
        print(help_text)
        raise SystemExit(0)
    words, own, unknown = split_arguments(arguments, options)
    for name in unknown:
        raise InputError(
            f"There is no flag --{name}: expected {', '.join(f'--{key}' for key in options)}."
            f"{did_you_mean(name, options)}"
        )
    return words, own
