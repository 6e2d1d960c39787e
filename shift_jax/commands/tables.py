"""Prints the paper's tables beside the exact counts of this package's networks.

    shift-jax tables --table=5 --format=markdown

Prints Tables 1-7, 9 and 10, or one of them: the paper's cells as printed, exact parameters and
multiply-accumulates (the paper's FLOPs), whether the cell is the exact number rounded or
truncated, and remarks. Accuracies are the paper's only.
"""

import gc
from argparse import Namespace

from shift_jax.commands.line import CommandLine, number

line = CommandLine("tables")
line.add("--table", "Number of one table. Default: all.", number(int))
line.add("--format", "Format of the tables.", choices=("text", "markdown", "json"), default="text")


def main(options: Namespace) -> None:
    from shift_jax.paper.tables.tables import as_json, as_text, paper_tables

    # Tracing sixty networks makes millions of objects, which the collector would walk through again
    # and again for a third of the time.
    gc.disable()
    try:
        parts = paper_tables(None if options.table is None else [options.table])
    finally:
        gc.enable()
    if options.format == "json":
        print(as_json(parts))
    else:
        print(as_text(parts, markdown=options.format == "markdown"))


if __name__ == "__main__":
    line.run(main)
