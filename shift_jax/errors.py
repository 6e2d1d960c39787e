"""The exceptions that command lines print as one sentence, and checks that raise them."""

import difflib
import errno
import operator
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input, told in one sentence: what was wrong, what was expected, what to do.

    A `ValueError`, so that library users catch it as usual; the command lines print
    its text without a stack trace and exit with status 2.
    """


STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EIO, errno.EACCES)
"""Error numbers of a disk that failed, is full or is read-only: commands exit with status 1."""


class StorageError(Exception):
    """One of `STORAGE_ERRORS`, told in one sentence."""


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Returns " Did you mean 'a' or 'b'?" for the options nearest to `name`, else ""."""
    near = difflib.get_close_matches(str(name), list(map(str, options)), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(option) for option in near)}?" if near else ""


def check_choice(name: str, value: object, options: Iterable[object]) -> None:
    """Raises InputError unless `value` is one of the options, which need not be hashable."""
    options = tuple(options)
    if value not in options:
        *others, last = map(repr, options)
        raise InputError(
            f"{name} is {value!r}, expected {', '.join(others)} or {last}."
            f"{did_you_mean(str(value), map(str, options))}"
        )


def positive_int(name: str, value: int) -> int:
    """Returns `value` as an int; InputError naming the argument when it is not one above 0."""
    try:
        number = 0 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise InputError(f"{name} is {value!r}, expected a positive integer.")
    return number
