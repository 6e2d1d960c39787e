"""Writes a shift allocation, other than the paper's uniform one, from a trained network.

    shift-jax allocation --workdir=runs/shiftresnet20-3 --output=results/from_contributions.json

Writes {"name": "from_contributions", "direction_weights": [...]}: the mean contribution of each of
the strongest directions, 0 for the others (Section 4 of the paper). The sweep trains a network
with it as --models=shiftresnet20-3@results/from_contributions.json, and the results page finds
it there. `shiftresnet20(direction_weights=...)` and the other ShiftResNets take the weights.
"""

from argparse import Namespace

from shift_jax.commands.line import DIR, FILE, CommandLine, number

line = CommandLine(
    "allocation",
    "Name a trained network and a file",
    "--weights=shiftresnet20-3.cifar100 --output=results/from_contributions.json",
)
line.add("--workdir", "Folder of a run.", DIR)
line.add("--weights", "Name of a shipped network instead.", metavar="NAME")
line.add("--keep", "How many of the strongest directions keep channels.", number(int), default=5)
line.add("--name", "Name of the allocation.", default="from_contributions")
line.add("--output", "JSON file, such as results/NAME.json.", FILE, required=True)


def main(options: Namespace) -> None:
    from shift_jax.paper.figures.allocation import write_allocation

    write_allocation(**vars(options))


if __name__ == "__main__":
    line.run(main)
