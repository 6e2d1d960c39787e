"""Writes a checkpoint's weights as one safetensors file, with its network and config.

    shift-jax export --workdir=runs/x --output=x.safetensors
    shift-jax import-weights x.safetensors --output=DIR

The second reads the file back.
"""

from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from shift_jax.commands.line import DIR, FILE, CommandLine


def _output(text: str) -> Path:
    if not text.endswith(".safetensors"):
        raise ArgumentTypeError("a file that ends in .safetensors")
    return FILE(text, "--output")


line = CommandLine("export", "Name a run and a file", "--workdir=runs/x --output=x.safetensors")
line.add("--workdir", "Folder of a run, whose newest checkpoint is taken.", DIR)
line.add("--checkpoint", "Folder of one checkpoint instead.", DIR)
line.add(
    "--dtype",
    "Type of the weights; bfloat16 halves the file.",
    choices=("float32", "bfloat16"),
    default="float32",
)
line.add(
    "--output",
    "File to write, which ends in .safetensors.",
    _output,
    required=True,
    metavar="FILE",
)


def main(options: Namespace) -> None:
    from shift_jax.training.runs.import_weights import export_safetensors

    export_safetensors(**vars(options))
    print(f"written to {options.output}")


if __name__ == "__main__":
    line.run(main)
