"""Writes a shift allocation, other than the paper's uniform one, from a trained network.

    shift-jax allocation --workdir=runs/shiftresnet20-9 --output=results/from_contributions.json

Writes {"name": "from_contributions", "direction_weights": [...]}: the mean contribution of each of
the strongest directions, 0 for the others (Section 4 of the paper). The sweep trains a network
with it as --models=shiftresnet20-3@results/from_contributions.json, and the page of results finds
it there. `shiftresnet20(direction_weights=...)` and the other ShiftResNets take the weights.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from shift_jax.commands.dispatch import run
from shift_jax.commands.line import CommandLine, number, path


def command_line() -> CommandLine:
    """Returns what the command takes."""
    line = CommandLine(
        "allocation",
        "Name a trained network and a file",
        "--weights=shiftresnet20-9.cifar100 --output=results/from_contributions.json",
    )
    line.add_argument("--workdir", type=path, metavar="DIR", help="Folder of a run.")
    line.add_argument("--weights", metavar="NAME", help="Name of a shipped network instead.")
    line.add_argument(
        "--keep",
        type=number(int),
        default=5,
        help="How many of the strongest directions keep channels.",
    )
    line.add_argument("--name", default="from_contributions", help="Of the allocation.")
    line.add_argument(
        "--output",
        type=path,
        required=True,
        metavar="FILE",
        help="JSON file, such as results/NAME.json.",
    )
    return line


def main(options: Namespace) -> None:
    """Writes the allocation."""
    from shift_jax.paper.figures.allocation import write_allocation

    write_allocation(
        options.output,
        options.name,
        workdir=options.workdir,
        weights=options.weights,
        keep=options.keep,
    )


if __name__ == "__main__":
    sys.exit(run("allocation"))
