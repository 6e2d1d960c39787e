"""Images that can not be read: what they are called, and how many a run puts up with."""

import dataclasses
from collections.abc import Iterable

from shift_jax.errors import InputError


class UndecodableError(Exception):
    """Bytes that no decoder takes for an image; its text says why, and not where they are."""


class UnreadableImageError(InputError):
    """An image that can not be decoded.

    Args:
      name: The file, or the record and its data set.
      reason: What the decoder said.
    """

    def __init__(self, name: str, reason: str):
        super().__init__(
            f"{name} can not be read as an image ({reason}); replace or remove the file."
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
"""What reading an image raises through its own fault. Other errors of the system, such as too many
open files, are not the image's."""


def as_unreadable(name: str, error: Exception) -> UnreadableImageError:
    """Returns what is to be raised in place of one of `IMAGE_ERRORS`."""
    return UnreadableImageError(name, getattr(error, "strerror", None) or str(error))


@dataclasses.dataclass(frozen=True)
class Unreadable:
    """One unreadable example of a source; travels from where it was read to where it counts."""

    index: int
    name: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Allowance:
    """How many distinct unreadable examples a source of `total` examples may have."""

    fraction: float
    total: int

    def __post_init__(self):
        check_max_unreadable_fraction(self.fraction)

    def exceeded_by(self, count: int) -> bool:
        """Whether `count` distinct unreadable examples are too many; all of them always are."""
        return count > self.fraction * self.total or count >= self.total

    def refusal(self, count: int, first: Unreadable) -> InputError:
        """The error of a run with `count` of them."""
        return InputError(
            f"{count} of {self.total} examples ({count / self.total:.2%}) can not be read as "
            f"images, more than max_unreadable_fraction={self.fraction:g} allows; the first is "
            f"{first.name} ({first.reason}): replace or remove them, or raise the fraction."
        )


def check_max_unreadable_fraction(fraction: float) -> None:
    """Raises InputError unless `fraction` lies in 0..1."""
    is_number = isinstance(fraction, int | float) and not isinstance(fraction, bool)
    if not is_number or not 0 <= fraction <= 1:
        raise InputError(
            f"max_unreadable_fraction is {fraction!r}; it must be a fraction of the examples, "
            "0 .. 1."
        )


class UnreadableCount:
    """Counts every unreadable example once, warns of it, and stops the run at too many."""

    def __init__(self, allowance: Allowance):
        self._allowance = allowance
        self._seen: dict[int, Unreadable] = {}

    def add(self, examples: Iterable[Unreadable]) -> None:
        """Warns of those not seen before; raises InputError once there are too many."""
        from absl import logging

        for example in examples:
            if example.index in self._seen:
                continue
            self._seen[example.index] = example
            logging.warning(
                "%s can not be read as an image (%s): left out, %d unreadable so far.",
                example.name,
                example.reason,
                len(self._seen),
            )
            if self._allowance.exceeded_by(len(self._seen)):
                raise self._allowance.refusal(len(self._seen), next(iter(self._seen.values())))
