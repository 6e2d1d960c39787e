"""Writes docs/results.md: our accuracies beside the published ones, from the sweep's files.

    shift-jax results --output=docs/results.md

Reads the runs on CIFAR-100 and CIFAR-10, and the allocations beside them that are not
built in, results/NAME.json.
"""

from argparse import Namespace
from pathlib import Path

from shift_jax.commands.line import FILE, CommandLine

line = CommandLine("results")
line.add("--results", "Runs on CIFAR-100. Default: results/cifar100.csv, if it is there.", FILE)
line.add("--cifar10", "Runs on CIFAR-10. Default: results/cifar10.csv, if it is there.", FILE)
line.add("--output", "The page to write.", FILE, default=Path("docs/results.md"))


def main(options: Namespace) -> None:
    from shift_jax.paper.results_page import write_page

    write_page(options.output, options.results, options.cifar10)


if __name__ == "__main__":
    line.run(main)
