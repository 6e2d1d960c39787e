"""Parts of the paper's tables: counted networks, rows, and agreement with a printed cell."""

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
    """One table to print; each table of the paper has one or more.

    Attributes:
      table: the number of the paper's table.
      title: what the part shows.
      rows: cells by column; "note" is a remark on the row, not a column.
      remarks: remarks on the whole part.
    """

    table: int
    title: str
    rows: list[dict[str, Any]]
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Counted:
    """The layers of one of the package's networks, and their totals."""

    rows: tuple[LayerRow, ...]

    @property
    def params(self) -> int:
        """Trained parameters."""
        return sum(row.params for row in self.rows)

    @property
    def params_without_norm(self) -> int:
        """Trained parameters without BatchNorm's scales and biases."""
        return sum(row.params for row in self.rows if row.kind != "BatchNorm")

    @property
    def macs(self) -> int:
        """True multiply-accumulates of one image."""
        return sum(row.macs for row in self.rows)

    @property
    def paper_macs(self) -> int:
        """MACs of a CIFAR network by the paper's counter."""
        return paper_cifar_formula({row.name: row.params for row in self.rows if row.macs})

    def part(self, *prefixes: str) -> Counted:
        """The layers whose names start with one of the prefixes."""
        return Counted(tuple(row for row in self.rows if row.name.startswith(prefixes)))


@functools.cache
def counted(name: str, **arguments) -> Counted:
    """Counts a network on images of its record's shape, and remembers the result."""
    model = create_model(name, **arguments)
    return Counted(tuple(layer_table(model, model_record(name).image_shape)))


def for_100_classes(network: Counted) -> int:
    """Returns the parameters with 100 classes of a CIFAR network counted with 10."""
    return network.params + 9 * network.part("classifier").params


@functools.cache
def parameters_10_100(name: str, **arguments) -> tuple[int, int]:
    """Returns the parameters of a CIFAR network with 10 and with 100 classes.

    It takes half the time of `counted`.
    """
    model = create_model(name, num_classes=10, **arguments)
    params = abstract_variables(model, model_record(name).image_shape)["params"]
    total, classifier = (
        count_parameters({"params": tree}) for tree in (params, params["classifier"])
    )
    return total, total + 9 * classifier


def agreement(printed: str, exact: int | Fraction) -> str:
    """Returns how a printed cell follows from the exact number: "rounded", "truncated" or "no".

    Args:
      printed: a cell such as "0.87M", "203K" or, in the paper's millions, "0.87"; "7.8×" is 7.8.
      exact: the exact number.
    """
    match = re.fullmatch(r"(\d+)(?:\.(\d+))?([MK×]?)", printed)
    assert match is not None, printed
    unit = {"M": 10**6, "": 10**6, "K": 10**3, "×": 1}[match[3]]
    decimals = match[2] or ""
    scaled = Fraction(exact) * 10 ** len(decimals) / unit
    cell = int(match[1] + decimals)
    if (scaled + Fraction(1, 2)).__floor__() == cell:
        return "rounded"
    return "truncated" if scaled.__floor__() == cell else "no"
