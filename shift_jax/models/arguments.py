"""Models on a command line: `NAME --expansion=3 --width=0.5**0.5`."""

from __future__ import annotations

import ast
import math
from collections.abc import Mapping, Sequence
from typing import Any

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


def refuse_unknown(unknown: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raises InputError if there are arguments that a command without a model has no use for.

    Args:
      unknown: the third result of `split_arguments`.
      options: the command's own.
    """
    for name in unknown:
        raise InputError(
            f"There is no flag --{name}: expected {', '.join(f'--{key}' for key in options)}."
            f"{did_you_mean(name, options)}"
        )


def literal(text: str) -> Any:
    """A Python literal, a power of two numbers such as 0.5**0.5, or the text itself."""
    if text in ("true", "false"):  # As absl's flags are written.
        return text == "true"
    base, power, exponent = text.partition("**")
    try:
        value = ast.literal_eval(base)
        # In floats, where a huge power is an error at once; complex results are no argument.
        return math.pow(value, ast.literal_eval(exponent)) if power else value
    except (ValueError, SyntaxError, TypeError, OverflowError):
        return text
