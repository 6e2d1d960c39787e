"""Draws Figures 7 and 8 of a trained shift network and lists its redundant channels.

    shift-jax figures --workdir=runs/shiftresnet20-9
    shift-jax figures --weights=shiftresnet20.digits --output=DIR

Draws figure7.png (the contributions of one module's channels and directions) and figure8.png (the
correlations of its channels on test images), and writes redundant_pairs.csv.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from shift_jax.commands.dispatch import run
from shift_jax.commands.line import CommandLine, number, path


def command_line() -> CommandLine:
    """Returns what the command takes."""
    line = CommandLine("figures")
    line.add_argument("--workdir", type=path, metavar="DIR", help="Folder of a run.")
    line.add_argument("--weights", metavar="NAME", help="Name of a shipped network instead.")
    line.add_argument(
        "--module",
        metavar="PATH",
        help="Path of a module, such as group1_block2. Without it the first module that keeps its "
        "number of channels.",
    )
    line.add_argument("--split", help="Of the images; without it the evaluation split.")
    line.add_argument(
        "--num_images", type=number(int), default=1000, help="Spread evenly over the split."
    )
    line.add_argument(
        "--threshold",
        type=number(float),
        default=0.9,
        help="Channels with a larger |correlation| are redundant.",
    )
    line.add_argument("--data_dir", type=path, metavar="DIR", help="Where the dataset is.")
    line.add_argument(
        "--output", type=path, metavar="DIR", help="Without it the run's folder, or this one."
    )
    return line


def main(options: Namespace) -> None:
    """Draws."""
    from shift_jax.paper.figures.section_4 import draw_figures
    from shift_jax.paper.figures.trained_network import trained_network

    draw_figures(
        trained_network(options.workdir, options.weights, options.data_dir),
        options.output or options.workdir or Path(),
        module=options.module,
        split=options.split,
        num_images=options.num_images,
        threshold=options.threshold,
    )


if __name__ == "__main__":
    sys.exit(run("figures"))
