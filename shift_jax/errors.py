"""The one exception for mistakes of the caller, and the wording that goes with it."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Bad input, told in one sentence: what was wrong, what was expected, what to do.

    A `ValueError`, so that library users catch it as usual; the command lines print
    its text without a stack trace and exit with status 2.
    """


def did_you_mean(name: str, options: Iterable[str]) -> str:
    """Returns " Did you mean 'a' or 'b'?" for the options nearest to `name`, else ""."""
    near = difflib.get_close_matches(str(name), list(map(str, options)), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(repr(option) for option in near)}?" if near else ""
