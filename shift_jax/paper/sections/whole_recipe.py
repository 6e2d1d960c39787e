"""The section on Table 5: what was trained for as many epochs as the paper's networks."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from shift_jax.config import AUTHORS_EPOCHS
from shift_jax.paper.sections.formatting import (
    NOT_RUN,
    SWEEP,
    aligned_table,
    cost,
    printed,
    section,
    spread,
)
from shift_jax.paper.sweep.network_runs import NetworkRuns
from shift_jax.paper.tables.published import Published, families

_LOW_POINTS = 1

_LEGEND = f"""\
- "Paper" is the paper's Table 5; "Re-run" is the authors' later run, from their repository. Both
  are accuracies of the best test epoch.
- (low): more than {_LOW_POINTS} point below every published accuracy of the network; for networks
  reduced module-wise, below the re-run alone where there is one.
- Table 1 is shiftresnet56-3 and resnet56; Table 2 is shiftresnet110-1, resnet110-net-1 and
  resnet110-module-1; Table 4 is shiftresnet20-6, 56-6 and 110-6 and resnet20, 56 and 110.
"""

_MODULE_WISE = """\
The paper's networks of this table have 6 to 79 % more parameters (resnet20-module-1: 41,796 instead
of 30,308): the authors' first code gave every reduced block a projection shortcut, the likely cause
of the 40 % at depth 110. The re-run and our runs have no projection where the shape stays the same.
"""


def whole_recipe(cifar100: Sequence[NetworkRuns], cifar10: Sequence[NetworkRuns]) -> list[str]:
    """Returns the section and its subsections, a table for each column of Table 5.

    Args:
      cifar100: controlled runs on CIFAR-100.
      cifar10: controlled runs on CIFAR-10.
    """
    ours, ours_10 = _in_full(cifar100), _in_full(cifar10)
    tables = [(family.title, family.networks) for family in families()]
    known = {name: network for _, networks in tables for name, network in networks.items()}
    others = sorted((ours.keys() | ours_10.keys()) - known.keys())
    tables.append(("Other networks", dict.fromkeys(others, Published())))
    trained = ours.keys() | ours_10.keys()
    sections = [
        section(
            f"## Table 5: all {AUTHORS_EPOCHS} epochs",
            _count(known, ours, ours_10),
            _LEGEND if trained else "",
        )
    ]
    for title, networks in tables:
        rows = [
            _row(name, networks[name], ours.get(name), ours_10.get(name), bool(ours_10))
            for name in networks
            if name in trained
        ]
        is_module_wise = any("-module-" in name and networks[name].cifar100 for name in networks)
        sections.append(
            section(
                f"### {title}", aligned_table(rows), _MODULE_WISE if rows and is_module_wise else ""
            )
        )
    return sections


def _count(
    known: Mapping[str, Published],
    ours: Mapping[str, NetworkRuns],
    ours_10: Mapping[str, NetworkRuns],
) -> str:
    """How many networks are trained, and the command for the others."""
    table = {name for name, network in known.items() if network.cifar100 is not None}
    table_10 = {name for name, network in known.items() if network.cifar10 is not None}
    depthwise = known.keys() - table
    text = (
        f"Trained so far: {len(table & ours.keys())} of the table's {len(table)} networks on "
        f"CIFAR-100 and {len(table_10 & ours_10.keys())} of {len(table_10)} on CIFAR-10, and "
        f"{len(depthwise & ours.keys())} of the {len(depthwise)} depthwise ResNets that the "
        "authors' re-run adds. This command trains what the table still lacks:"
    )
    return f"{textwrap.fill(text, 100)}\n\n```sh\n{SWEEP} --table=5 --dataset=cifar100\n```"


def _in_full(groups: Sequence[NetworkRuns]) -> dict[str, NetworkRuns]:
    """Returns by name what was trained as Table 5 was."""
    return {
        group.name: group
        for group in groups
        if group.epochs == AUTHORS_EPOCHS and not group.allocation
    }


def _row(
    name: str,
    published: Published,
    group: NetworkRuns | None,
    group_10: NetworkRuns | None,
    has_cifar10: bool,
) -> dict[str, str]:
    known = (published.cifar100, published.rerun)
    if "-module-" in name and published.rerun is not None:
        known = (published.rerun,)  # The paper's network had the projection shortcuts.
    row = {
        "Network": name,
        "Paper": printed(published.cifar100),
        "Re-run": printed(published.rerun),
        "Last epoch": _accuracy(group, "last_top1", known),
        "Best epoch": _accuracy(group, "best_top1", known),
        **cost(group),
    }
    if has_cifar10:
        row |= {
            "CIFAR-10: paper": printed(published.cifar10),
            "CIFAR-10: last": _accuracy(group_10, "last_top1", (published.cifar10,)),
            "CIFAR-10: best": _accuracy(group_10, "best_top1", (published.cifar10,)),
        }
    return row


def _accuracy(group: NetworkRuns | None, field: str, published: Iterable[float | None]) -> str:
    if group is None:
        return NOT_RUN
    return spread(group.values(field)) + _low(group.mean(field), published)


def _low(mean: float, published: Iterable[float | None]) -> str:
    known = [value for value in published if value is not None]
    # Rounded: in binary 64.51 - 63.51 is more than 1.
    return " (low)" if known and round(min(known) - mean, 6) > _LOW_POINTS else ""
