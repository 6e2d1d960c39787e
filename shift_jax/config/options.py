"""Text from command lines and from `--config=FILE:OPTIONS`, read as Python values."""

from __future__ import annotations

import ast
import math
from typing import Any


def parse_options(text: str) -> tuple[list[str], dict[str, Any]]:
    """Splits "cifar100,shiftresnet20,expansion=3" into its words and its key=value pairs.

    `literal` reads the values.
    """
    words, pairs = [], {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        key, equals, value = part.partition("=")
        if equals:
            pairs[key.strip()] = literal(value)
        else:
            words.append(part)
    return words, pairs


def literal(text: str) -> Any:
    """Returns a Python literal, a power of two numbers such as 0.5**0.5, or the text itself."""
    if text in ("true", "false"):  # As absl writes flags.
        return text == "true"
    base, power, exponent = text.partition("**")
    try:
        value = ast.literal_eval(base)
        # In floats, where a huge power is an error at once; no argument takes a complex result.
        return math.pow(value, ast.literal_eval(exponent)) if power else value
    # The last two are of Python's parser, about thousands of parentheses.
    except (ValueError, SyntaxError, TypeError, OverflowError, MemoryError, RecursionError):
        return text
