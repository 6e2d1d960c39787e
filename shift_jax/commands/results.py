"""Writes docs/results.md: our accuracies beside the published ones, from the sweep's files.

    shift-jax results --output=docs/results.md

Reads the runs on CIFAR-100 and CIFAR-10, and beside them the allocations that are not named ones,
results/NAME.json.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from shift_jax.commands.dispatch import run
from shift_jax.commands.line import CommandLine, path


def command_line() -> CommandLine:
    """Returns what the command takes."""
    line = CommandLine("results")
    line.add_argument(
        "--results",
        type=path,
        metavar="FILE",
        help="Runs on CIFAR-100. Default: results/cifar100.csv, if it is there.",
    )
    line.add_argument(
        "--cifar10",
        type=path,
        metavar="FILE",
        help="Runs on CIFAR-10. Default: results/cifar10.csv, if it is there.",
    )
    line.add_argument(
        "--output",
        type=path,
        default=Path("docs/results.md"),
        metavar="FILE",
        help="The page to write.",
    )
    return line


def main(options: Namespace) -> None:
    """Writes the page."""
    from shift_jax.paper.results_page import write_page

    write_page(options.output, options.results, options.cifar10)


if __name__ == "__main__":
    sys.exit(run("results"))
