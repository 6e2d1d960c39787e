"""Shift allocations by name: built-in ones and those in JSON files."""

from __future__ import annotations

import json
import re
from pathlib import Path

from shift_jax.errors import InputError

NAMED_ALLOCATIONS: dict[str, tuple[float, ...] | None] = {
    "uniform": None,
    "even": (1,) * 9,
    "cross": (0, 1, 0, 1, 1, 1, 0, 1, 0),
}
"""Direction weights of 3×3 shifts by name: the paper's allocation; the even one as a control, which
gives the channels left over to the first directions and not to the center; and the cross into which
the paper found "the largest contributions fall" (Section 4.2)."""


def check_allocation_name(name: object) -> str:
    """Returns a name that a file may give its allocation.

    Raises:
      InputError: the name is not made of letters, digits and underscores, or is built in.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w+", name):
        raise InputError(
            f"An allocation's name is {name!r}, expected letters, digits and underscores, such as "
            "from_contributions."
        )
    if name in NAMED_ALLOCATIONS:
        raise InputError(
            f"An allocation's name is {name!r}, the name of a built-in one: choose another."
        )
    return name


def read_allocation(path: Path) -> tuple[str, tuple[float, ...]]:
    """Returns the name and the direction weights in a file of `shift-jax allocation`.

    Raises:
      InputError: the file cannot be read, or holds no allocation.
    """
    try:
        content = json.loads(path.read_text())
        name, weights = content["name"], content["direction_weights"]
        if not isinstance(weights, list):
            raise TypeError
        weights = tuple(map(float, weights))
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): name another file.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is not an allocation: expected JSON with a name and direction_weights, as "
            "shift-jax allocation writes."
        ) from error
    try:
        return check_allocation_name(name), weights
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
