"""How the fields of an experiment are declared and checked.

A field's default, meaning and range are stated once, where it is declared. Range checks, the
completion of older configs and the table in the documentation all read that declaration.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import itertools
import math
import numbers
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from shift_jax.errors import InputError, check_choice

_KEY = "setting"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a field declares beside its type and its default.

    Attributes:
      meaning: a noun phrase, which error messages and the documentation print.
      choices: the only values allowed; empty for no such limit.
      at_least, above, at_most, below: limits of a number, or of each number in a tuple.
      length: of a tuple; None for any.
      increasing: whether each number of a tuple must exceed the one before.
      before: the value that configs older than the field imply; None where it is the default.
      path: whether the value is a path, or "or name", for which a name without a folder counts as
        one only if it exists. Empty is allowed where it is the default.
      runtime_only: whether a resumed run may change it, because it affects how a run is carried
        out and nothing of what it computes.
    """

    meaning: str
    choices: tuple = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    length: int | None = None
    increasing: bool = False
    before: Any = None
    path: Literal[False, True, "or name"] = False
    runtime_only: bool = False

    def allows(self, value: Any) -> bool:
        """Whether a value of the field's type lies in its range."""
        if isinstance(value, tuple):
            ascending = all(a < b for a, b in itertools.pairwise(value))
            return (
                self.length in (None, len(value))
                and (ascending or not self.increasing)
                and all(map(self._allows_one, value))
            )
        return self._allows_one(value)

    def _allows_one(self, value: Any) -> bool:
        if not _is_number(value):
            return True
        return (
            math.isfinite(value)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def expected(self, annotation: Any) -> str:
        """Describes the values that a field of this type takes, as in "a number above 0"."""
        if self.choices:
            *others, last = map(repr, self.choices)
            return f"{', '.join(others)} or {last}"
        if annotation is int and self.at_least == 1 and self.at_most is None:
            return "a positive integer"
        kind = _KINDS[annotation]
        if self.length is not None:
            kind = f"{self.length} {kind}"
        if self.at_least is not None and self.at_most is not None:
            limits = [f"from {self.at_least} to {self.at_most}"]
        else:
            limits = [
                text.format(limit)
                for text, limit in (
                    ("of {} or more", self.at_least),
                    ("above {}", self.above),
                    ("at most {}", self.at_most),
                    ("below {}", self.below),
                )
                if limit is not None
            ]
        order = ["in increasing order"] if self.increasing else []
        return " ".join([kind, " and ".join(limits), *order]).replace("  ", " ").rstrip()


_KINDS: dict[Any, str] = {
    bool: "True or False",
    int: "an integer",
    float: "a number",
    str: "a string",
    tuple[float, ...]: "numbers",
    tuple[str, ...]: "strings",
    dict[str, Any]: "arguments by name",
}


def setting(default: Any, meaning: str, **limits: Any) -> Any:
    """Declares a field of a config; the limits are the other attributes of `Setting`."""
    metadata = {_KEY: Setting(meaning=meaning, **limits)}
    if isinstance(default, dict):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def other_default(owner: type, name: str, default: Any) -> Any:
    """Declares a field of a base class again with another default; the meaning stays."""
    return dataclasses.field(default=default, metadata=owner.__dataclass_fields__[name].metadata)


def section(kind: Callable[..., Any], **defaults: Any) -> Any:
    """Declares fields of a config that belong together, some perhaps with other defaults."""
    return dataclasses.field(default_factory=functools.partial(kind, **defaults))


class Declared(NamedTuple):
    """A field of a section, as `walk` finds it.

    Attributes:
      name: such as "optimizer.momentum".
      owner: the section that holds the field.
      attribute: the field's name in it.
      type: its annotation.
      setting: what it declares beside.
    """

    name: str
    owner: Any
    attribute: str
    type: Any
    setting: Setting


def walk(config: Any, prefix: str = "") -> Iterator[Declared]:
    """Yields the fields of a config, and those of its sections in their places."""
    hints = _hints(type(config))
    for field in dataclasses.fields(config):
        name = prefix + field.name
        if _KEY in field.metadata:
            yield Declared(name, config, field.name, hints[field.name], field.metadata[_KEY])
        else:
            yield from walk(getattr(config, field.name), f"{name}.")


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


class Field(NamedTuple):
    """A row of the table of all fields.

    Attributes:
      name: such as "optimizer.momentum".
      type: as it is written in Python.
      default: of the task whose config it is.
      meaning: a noun phrase.
      expected: the values allowed, in words.
    """

    name: str
    type: str
    default: Any
    meaning: str
    expected: str


def fields_of(kind: type) -> Iterator[Field]:
    """Yields every field of a task's config, such as `shift_jax.config.FacesConfig`."""
    for each in walk(kind()):
        yield Field(
            each.name,
            inspect.formatannotation(each.type),
            getattr(each.owner, each.attribute),
            each.setting.meaning,
            each.setting.expected(each.type),
        )


def check(config: Any, prefix: str = "") -> None:
    """Raises InputError for a field of a config that has a wrong type or is out of range.

    Args:
      config: of an experiment, or one section of it.
      prefix: of the names in the message, such as "optimizer." for that section.
    """
    for name, owner, attribute, annotation, declared in walk(config, prefix):
        value = converted(name, annotation, declared, getattr(owner, attribute))
        if declared.choices:
            check_choice(name, value, declared.choices)
        elif not declared.allows(value):
            raise _refusal(name, annotation, declared, value)


def converted(name: str, annotation: Any, declared: Setting, value: Any) -> Any:
    """Returns a value in the type of its field: lists become tuples, and integers floats.

    Raises:
      InputError: a value that is not of that type.
    """
    if annotation is float and _is_number(value):
        return float(value)
    if annotation is int and _is_number(value) and isinstance(value, numbers.Integral):
        return int(value)
    if annotation in (str, bool) and isinstance(value, annotation):
        return value
    if annotation == dict[str, Any] and isinstance(value, Mapping):
        return {key: with_tuples(each) for key, each in value.items()}
    if typing.get_origin(annotation) is tuple and isinstance(value, list | tuple):
        element = typing.get_args(annotation)[0]
        if all(_is_number(each) if element is float else isinstance(each, str) for each in value):
            return tuple(value)
    raise _refusal(name, annotation, declared, value)


def with_tuples(value: Any) -> Any:
    """Returns a value whose lists, which JSON has in place of tuples, are tuples."""
    if isinstance(value, list | tuple):
        return tuple(map(with_tuples, value))
    return value


def _is_number(value: Any) -> bool:
    if isinstance(value, int) and value.bit_length() > 1000:  # More than a float can hold.
        return False
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _refusal(name: str, annotation: Any, declared: Setting, value: Any) -> InputError:
    return InputError(
        f"{name} is {value!r}, expected {declared.expected(annotation)}: {declared.meaning}."
    )
