"""Images that cannot be read: their exceptions, and how many of them a run tolerates."""

import dataclasses
from collections.abc import Iterable

from shift_jax.errors import InputError


class UndecodableError(Exception):
    """No decoder accepts the bytes. The text says why, but not which file they come from."""


class UnreadableImageError(InputError):
    """An image cannot be decoded.

    Args:
      name: The file, or the record and its dataset.
      reason: The decoder's message.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(
            f"{name} cannot be read as an image ({reason}); replace or remove the file."
        )
        self.name = name
        self.reason = reason

    def __reduce__(self):
        return UnreadableImageError, (self.name, self.reason)


IMAGE_ERRORS = (
    FileNotFoundError,
    NotADirectoryError,
    IsADirectoryError,
    PermissionError,
    UndecodableError,
)
"""Exceptions that are the fault of the image. Other errors of the system, such as too many open
files, are not."""


def as_unreadable(name: str, error: Exception) -> UnreadableImageError:
    """Converts one of `IMAGE_ERRORS` to the exception to raise in its place."""
    return UnreadableImageError(name, getattr(error, "strerror", None) or str(error))


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """One unreadable example of a source, on its way from its reader to the `UnreadableCount`."""

    index: int
    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Allowance:
    """The number of distinct unreadable examples that a source of `total` examples may have."""

    fraction: float
    total: int

    def __post_init__(self):
        check_max_unreadable_fraction(self.fraction)

    def exceeded_by(self, count: int) -> bool:
        """Whether `count` distinct unreadable examples are too many. All of them always are."""
        return count > self.fraction * self.total or count >= self.total

    def refusal(self, count: int, first: Unreadable) -> InputError:
        """Returns the error for `count` unreadable examples."""
        return InputError(
            f"{count} of {self.total} examples ({count / self.total:.2%}) cannot be read as "
            f"images, more than max_unreadable_fraction={self.fraction:g} allows; the first is "
            f"{first.name} ({first.reason}): replace or remove them, or raise the fraction."
        )


def check_max_unreadable_fraction(fraction: float) -> None:
    """Raises InputError unless `fraction` is a number in 0..1."""
    is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not is_number or not 0 <= fraction <= 1:
        raise InputError(
            f"max_unreadable_fraction is {fraction!r}; it must be a fraction of the examples, 0..1."
        )


class UnreadableCount:
    """Counts each unreadable example once, logs it, and stops the run when there are too many."""

    def __init__(self, allowance: Allowance):
        self._allowance = allowance
        self._seen: dict[int, Unreadable] = {}

    def add(self, examples: Iterable[Unreadable]) -> None:
        """Logs the examples that are new; raises InputError if there are now too many."""
        from absl import logging

        for example in examples:
            if example.index in self._seen:
                continue
            self._seen[example.index] = example
            logging.warning(
                "%s cannot be read as an image (%s) and is skipped; %d unreadable so far.",
                example.name,
                example.reason,
                len(self._seen),
            )
            if self._allowance.exceeded_by(len(self._seen)):
                raise self._allowance.refusal(len(self._seen), next(iter(self._seen.values())))
