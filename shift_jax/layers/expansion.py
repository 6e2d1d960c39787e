"""Widths of the middle of a module."""

from __future__ import annotations

import math

from shift_jax.errors import InputError


def middle_channels(expansion: float, reference: int) -> int:
    """Returns int(expansion · reference).

    Raises:
      InputError: the expansion is no finite number, or leaves no channel.
    """
    if not isinstance(expansion, int | float) or not math.isfinite(expansion):
        raise InputError(f"expansion is {expansion!r}, expected a number such as 3.")
    if int(expansion * reference) < 1:
        raise InputError(
            f"expansion {expansion!r} of {reference} channels leaves no channel in the middle: "
            f"expected at least 1/{reference}."
        )
    return int(expansion * reference)
