"""Reports what a classification run came to: a short table and a picture.

    shift-jax report --workdir=runs/quickstart

Prints train and test top-1, parameters, MACs and where everything is; draws report.png with the
training curves and a dozen test images with their predictions.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from shift_jax.commands.dispatch import run
from shift_jax.commands.line import CommandLine, path


def command_line() -> CommandLine:
    """Returns what the command takes."""
    line = CommandLine("report", "Name the folder of a run", "--workdir=runs/quickstart")
    line.add_argument(
        "--workdir", type=path, required=True, metavar="DIR", help="Folder of the run."
    )
    return line


def main(options: Namespace) -> None:
    """Reports."""
    from shift_jax.training.report import report

    report(options.workdir)


if __name__ == "__main__":
    sys.exit(run("report"))
