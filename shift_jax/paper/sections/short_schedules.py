"""The section on runs of the authors' recipe in fewer epochs than the paper's."""

from __future__ import annotations

import re
from collections.abc import Sequence

from shift_jax.config import AUTHORS_EPOCHS
from shift_jax.paper.sections.formatting import (
    aligned_table,
    cost,
    difference,
    printed,
    section,
    spread,
)
from shift_jax.paper.sweep.network_runs import NetworkRuns
from shift_jax.paper.tables.published import Published, families

_TEXT = f"""\
These runs use the authors' recipe in a shorter schedule, whose learning rate falls after the same
parts of it. The ResNets below a ShiftResNet are reduced to its size; "ShiftResNet leads by" is its
accuracy after the last epoch minus theirs, over the seeds that both have. Compare runs of equal
epochs: the published accuracies took {AUTHORS_EPOCHS}.
"""
_KINDS = ("", "net", "module")
_UNREDUCED = 9.0
"""The expansion whose ShiftResNet has the size of the ResNet that is not reduced."""


def short_schedules(title: str, dataset: str, groups: Sequence[NetworkRuns]) -> str:
    """Returns the section, "" without such runs.

    Args:
      title: the dataset's name.
      dataset: its field of `Published`.
      groups: controlled runs; those of allocations have a section of their own.
    """
    short = [group for group in groups if group.epochs != AUTHORS_EPOCHS and not group.allocation]
    short.sort(key=_order)
    shift = {(group.name, group.epochs): group for group in short}
    published = {name: known for family in families() for name, known in family.networks.items()}
    rows = []
    for group in short:
        larger = shift.get((_shift_of_same_size(group), group.epochs))
        known = published.get(group.name, Published())
        row = {
            "Epochs": f"{group.epochs:g}",
            "Network": group.name,
            "Params": f"{group.runs[-1].params:,}",
            "Last epoch": spread(group.values("last_top1")),
            "Best epoch": spread(group.values("best_top1")),
            "ShiftResNet leads by": spread(
                difference(larger, group, "last_top1") if larger else [], sign="+"
            ),
            **cost(group),
            f"Paper, {AUTHORS_EPOCHS} epochs": printed(getattr(known, dataset)),
        }
        if dataset == "cifar100":
            row["Re-run"] = printed(known.rerun)
        rows.append(row)
    table = aligned_table(rows)
    return section(f"## {title}: fewer epochs", table and _TEXT, table)


def _order(group: NetworkRuns) -> tuple:
    """Long schedules first; then by depth and size, the ShiftResNet before its ResNets."""
    run = group.runs[0]
    number = re.search(r"\d+", run.model)
    return (
        -group.epochs,
        int(number[0]) if number else 0,
        run.expansion or _UNREDUCED,
        not run.model.startswith("shift"),
        _KINDS.index(run.reduction),
        group.name,
    )


def _shift_of_same_size(group: NetworkRuns) -> str:
    """The name of the ShiftResNet of a ResNet's size; "" for other networks."""
    run = group.runs[0]
    if not re.fullmatch(r"resnet\d+", run.model):
        return ""
    return f"shift{run.model}-{run.expansion or _UNREDUCED:g}"
