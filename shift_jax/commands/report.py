"""Summarizes a classification run in a short table and a picture.

    shift-jax report --workdir=runs/quickstart

Prints train and test top-1, parameters, MACs, and the paths of the files; draws report.png with the
training curves and a dozen test images with their predictions.
"""

from argparse import Namespace

from shift_jax.commands.line import DIR, CommandLine

line = CommandLine("report", "Name the folder of a run", "--workdir=runs/quickstart")
line.add("--workdir", "Folder of the run.", DIR, required=True)


def main(options: Namespace) -> None:
    from shift_jax.training.report import report

    report(options.workdir)


if __name__ == "__main__":
    line.run(main)
