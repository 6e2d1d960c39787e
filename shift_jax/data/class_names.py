"""Names of classes: those of the dataset, and readable ones.

A dataset names its classes by labels, which may be unreadable: ImageNet's are the numbers of
WordNet's synsets, such as "n01440764". `imagenet_classes.txt` has their readable names, which are
those of torchvision, in TFDS's order.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from shift_jax.errors import InputError

_TABLE = Path(__file__).with_name("imagenet_classes.txt")
_SYNSET = re.compile(r"(n\d{8})\s+(\S.*)")


class ClassName(NamedTuple):
    """The two names of a class.

    Attributes:
      label: that of the dataset, such as "n01440764".
      name: a readable one, such as "tench"; the label where there is no other.
    """

    label: str
    name: str


@functools.cache
def imagenet_classes() -> tuple[ClassName, ...]:
    """Returns the 1,000 classes of ImageNet in the order of their labels."""
    lines = _TABLE.read_text(encoding="utf-8").splitlines()
    return tuple(ClassName(*line.split(" ", 1)) for line in lines)


def with_names(labels: Sequence[str]) -> tuple[ClassName, ...]:
    """Returns classes by their labels, with readable names where a label is one of ImageNet's."""
    known = dict(imagenet_classes())
    return tuple(ClassName(label, known.get(label, label)) for label in labels)


def read_classes(path: str | Path) -> tuple[ClassName, ...]:
    """Returns the classes that a file names, one on each line, in the order of the outputs.

    A line is a label, or a label and a readable name with a tab between them, or after one of
    ImageNet's labels a blank. Empty lines are ignored.

    Raises:
      InputError: the file cannot be read, names no class, or names one twice.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        raise InputError(
            f"{path} cannot be read ({why}): expected a text file with a class on each line."
        ) from error
    classes = [_class(line.strip()) for line in text.splitlines() if line.strip()]
    labels = [each.label for each in classes]
    if not labels:
        raise InputError(f"{path} is empty: expected a class on each line.")
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise InputError(f"{path} names the class {twice!r} twice: give each class its own label.")
    return tuple(classes)


def _class(line: str) -> ClassName:
    label, tab, name = line.partition("\t")
    if not tab and (synset := _SYNSET.fullmatch(line)):
        label, name = synset.groups()
    if not name.strip():
        return with_names([label.strip()])[0]
    return ClassName(label.strip(), name.strip())
