"""What the paper's tables are made of: counted networks, agreement with a printed cell, rows."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from shift_jax.counting import LayerRow, count_parameters, layer_table
from shift_jax.counting.tracing import abstract_variables
from shift_jax.models import create_model, model_record
from shift_jax.paper.tables.paper_macs import paper_cifar_formula


@dataclass(frozen=True)
class Part:
    """One table to print; a table of the paper has one or more.

    Attributes:
      table: its number in the paper.
      title: what it shows.
      rows: cells by column; "note" is not a column but a remark on the row.
      remarks: on the table as a whole.
    """

    table: int
    title: str
    rows: list[dict[str, Any]]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counted:
    """The layers of one network of the zoo and what they come to."""

    rows: tuple[LayerRow, ...]

    @property
    def params(self) -> int:
        """Trained parameters."""
        return sum(row.params for row in self.rows)

    @property
    def params_without_norm(self) -> int:
        """Trained parameters that are not BatchNorm's scales and biases."""
        return sum(row.params for row in self.rows if row.kind != "BatchNorm")

    @property
    def macs(self) -> int:
        """True multiply-accumulates of one image."""
        return sum(row.macs for row in self.rows)

    @property
    def paper_macs(self) -> int:
        """Of a CIFAR network: what the paper's counter gives."""
        return paper_cifar_formula({row.name: row.params for row in self.rows if row.macs})

    def part(self, *prefixes: str) -> Counted:
        """The layers whose names start with one of the prefixes."""
        return Counted(tuple(row for row in self.rows if row.name.startswith(prefixes)))


@functools.cache
def counted(name: str, **arguments) -> Counted:
    """Counts a network of the zoo on images of its record's shape; once, however often asked."""
    model = create_model(name, **arguments)
    return Counted(tuple(layer_table(model, model_record(name).image_shape)))


def for_100_classes(network: Counted) -> int:
    """Parameters of a CIFAR network counted with 10 classes, had it 100."""
    return network.params + 9 * network.part("classifier").params


@functools.cache
def parameters_10_100(name: str, **arguments) -> tuple[int, int]:
    """Parameters of a CIFAR network for 10 and 100 classes, in half the time of `counted`."""
    model = create_model(name, num_classes=10, **arguments)
    params = abstract_variables(model, model_record(name).image_shape)["params"]
    total, classifier = (
        count_parameters({"params": tree}) for tree in (params, params["classifier"])
    )
    return total, total + 9 * classifier


def agreement(printed: str, exact: int | Fraction) -> str:
    """Says how a printed cell comes from an exact number: "rounded", "truncated" or "no".

    Args:
      printed: such as "0.87M", "203K" or, in the paper's millions, "0.87"; "7.8×" is a plain 7.8.
      exact: the number itself.
    """
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?([MK×]?)", printed)
    unit = {"M": 10**6, "": 10**6, "K": 10**3, "×": 1}[match[3]]
    decimals = match[2] or ""
    scaled = Fraction(exact) * 10 ** len(decimals) / unit
    cell = int(match[1] + decimals)
    if (scaled + Fraction(1, 2)).__floor__() == cell:
        return "rounded"
    return "truncated" if scaled.__floor__() == cell else "no"
