"""Draws Figures 4 and 5: accuracy on CIFAR-100 against parameters and MACs.

    shift-jax accuracy-figures --results=results/cifar100.csv --output=docs/pictures

Draws figure4.png and figure5.png: our runs in color, the paper's in gray, and beside them our runs
with schedules other than the paper's. All are drawn over our counts, and Figure 5 over true MACs;
the paper's counter takes every convolution of a block at the block's input resolution.
"""

from argparse import Namespace
from pathlib import Path

from shift_jax.commands.line import DIR, FILE, CommandLine

line = CommandLine("accuracy-figures")
line.add(
    "--results",
    "The sweep's results file. Default: results/cifar100.csv, if it is there.",
    FILE,
)
line.add("--output", "Folder for the pictures.", DIR, default=Path("docs/pictures"))


def main(options: Namespace) -> None:
    from shift_jax.paper.figures.accuracy import draw_both
    from shift_jax.paper.sweep.network_runs import rows_of_file

    draw_both(rows_of_file(options.results, "results/cifar100.csv"), options.output)


if __name__ == "__main__":
    line.run(main)
