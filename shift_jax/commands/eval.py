"""Evaluates a run, one checkpoint or weights of the package on a whole split.

    shift-jax eval --workdir=runs/quickstart
    shift-jax eval --workdir=runs/quickstart --which=best --split=train
    shift-jax eval --checkpoint=runs/quickstart/checkpoints/1200
    shift-jax eval --weights=shiftresnet20-3.cifar100 --data_dir=DIR
    shift-jax eval --workdir=runs/faces --split=lfw --data_dir=DIR --pairs_file=pairs.txt

Prints the task's metrics and writes them as JSON, for some tasks with a picture beside it. In a
checkout `python eval.py` is the same, with absl's flags.
"""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, Namespace

from shift_jax.commands.dispatch import run
from shift_jax.commands.line import CommandLine, path


def command_line() -> CommandLine:
    """Returns what the command takes."""
    line = CommandLine("eval")
    line.add_argument("--workdir", type=path, metavar="DIR", help="Folder of a run.")
    line.add_argument(
        "--checkpoint", type=path, metavar="DIR", help="Folder of one checkpoint instead."
    )
    line.add_argument("--weights", metavar="NAME", help="Name of shipped weights instead.")
    line.add_argument(
        "--which",
        choices=("latest", "best"),
        default="latest",
        help="Which checkpoint of --workdir.",
    )
    line.add_argument("--split", help="Split to evaluate; without it the config's.")
    line.add_argument(
        "--data_dir",
        type=path,
        metavar="DIR",
        help="Where the dataset is; without it where the config says.",
    )
    line.add_argument(
        "--pairs_file", type=path, metavar="FILE", help="Pairs of faces, for --split=lfw or ytf."
    )
    line.add_argument(
        "--set",
        type=_field,
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="Field of the config to evaluate with, such as verification.num_pairs=1000. May be "
        "given more than once.",
    )
    line.add_argument(
        "--output",
        type=path,
        metavar="FILE",
        help="JSON file; without it metrics.json or metrics_SPLIT.json, in the workdir or "
        "runs/NAME.",
    )
    line.add_process_flags()
    return line


def main(options: Namespace) -> None:
    """Evaluates."""
    from shift_jax.training.evaluation import evaluate_and_report

    evaluate_and_report(
        workdir=options.workdir,
        checkpoint=options.checkpoint,
        weights=options.weights,
        which=options.which,
        split=options.split,
        data_dir=options.data_dir,
        pairs_file=options.pairs_file,
        overrides=dict(options.set),
        output=options.output,
    )


def _field(text: str) -> tuple[str, object]:
    from shift_jax.config import literal

    key, equals, value = text.partition("=")
    if not equals:
        raise ArgumentTypeError("FIELD=VALUE")
    return key, literal(value)


if __name__ == "__main__":
    sys.exit(run("eval"))
