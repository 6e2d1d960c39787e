"""Writes a checkpoint's weights as one safetensors file, with its network and config.

    shift-jax export --workdir=runs/x --output=x.safetensors
    shift-jax import-weights x.safetensors --output=DIR

The second reads the file back.
"""

from __future__ import annotations

import sys
from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from shift_jax.commands.dispatch import run
from shift_jax.commands.line import CommandLine, path


def command_line() -> CommandLine:
    """Returns what the command takes."""
    line = CommandLine("export", "Name a run and a file", "--workdir=runs/x --output=x.safetensors")
    line.add_argument(
        "--workdir", type=path, metavar="DIR", help="Folder of a run, for its newest checkpoint."
    )
    line.add_argument(
        "--checkpoint", type=path, metavar="DIR", help="Folder of one checkpoint instead."
    )
    line.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="Of the weights; bfloat16 writes half the bytes.",
    )
    line.add_argument(
        "--output",
        type=_output,
        required=True,
        metavar="FILE",
        help="File to write, which ends in .safetensors.",
    )
    return line


def main(options: Namespace) -> None:
    """Writes the file."""
    from shift_jax.training.runs.import_weights import export_safetensors

    export_safetensors(
        options.output,
        workdir=options.workdir,
        checkpoint=options.checkpoint,
        dtype=options.dtype,
    )
    print(f"written to {options.output}")


def _output(text: str) -> Path:
    if not text.endswith(".safetensors"):
        raise ArgumentTypeError("a file that ends in .safetensors")
    return path(text)


if __name__ == "__main__":
    sys.exit(run("export"))
