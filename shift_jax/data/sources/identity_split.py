"""Splits identities into those to train on and those to hold out, and reads lists of them."""

import hashlib
import os
from collections.abc import Collection

from shift_jax.data.sources.listing import normalized
from shift_jax.errors import InputError, did_you_mean


def split_identities(
    names: Collection[str], *, num_train: int, held_out: int | Collection[str], seed: int
) -> tuple[list[str], list[str]]:
    """Chooses identities to train on, and others to hold out for testing.

    A hash of the seed and the name orders the identities. Held-out identities come from one end of
    that order, training identities from the other. The training identities therefore depend on the
    names, the seed and `num_train`; held-out identities affect them only by removing some of them,
    or if all others are taken. A larger draw contains a smaller one, a new identity displaces at
    most one other, and the draw is the same with all versions of NumPy.

    Args:
      names: All identities, in any order.
      num_train: Number of identities to train on, drawn at random; 0 for all that are not held out.
        The paper draws 10,000 from MS-Celeb-1M (Section 3.3).
      held_out: The names to hold out, or their number, drawn at random.
      seed: Seed of the draw.

    Returns:
      The training and the held-out names, both sorted and disjoint.

    Raises:
      InputError: there are too few identities, or a held-out name does not exist.
    """
    order = sorted(set(names), key=lambda name: _place(seed, name))
    if isinstance(held_out, int):
        if not 0 <= held_out < len(order):
            raise InputError(
                f"Cannot hold out {held_out:,} of {len(order):,} identities: choose a number of at "
                "least 0 that leaves one to train on."
            )
        held_out = order[:held_out]
    elif unknown := sorted(set(held_out).difference(order)):
        raise InputError(
            f"There is no identity {unknown[0]!r} to hold out among the {len(order):,} in the data."
            f"{did_you_mean(unknown[0], order)}"
        )
    held_out = set(held_out)
    rest = [name for name in order if name not in held_out]
    if not rest or not 0 <= num_train <= len(rest):
        raise InputError(
            f"Cannot train on {num_train:,} identities (0: all), since {len(rest):,} of "
            f"{len(order):,} are not held out: train on fewer, or hold out fewer."
        )
    return sorted(rest[-num_train:]), sorted(held_out)


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Reads a list of identities from a text file with one name per line, in UTF-8.

    Blank lines, lines that start with #, and space around names are ignored.

    Returns:
      The names in the order of the file, each once, in Unicode's normal form C.

    Raises:
      InputError: the file cannot be read, is not text, or has no names.
    """
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise InputError(
            f"{path} cannot be read as a list of identities ({reason}); expected one name per line."
        ) from error
    lines = (normalized(line) for line in lines if line and not line.startswith("#"))
    names = list(dict.fromkeys(lines))
    if not names:
        raise InputError(f"{path} has no names of identities; write one per line.")
    return names


def _place(seed: int, name: str) -> bytes:
    return hashlib.sha256(f"{seed}/{name}".encode("utf-8", "surrogateescape")).digest()
