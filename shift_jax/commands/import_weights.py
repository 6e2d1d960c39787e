"""Makes the folder of a run, which eval takes, from a file of trained weights.

    shift-jax import-weights FILE --model=shiftresnet20 --expansion=3 --output=DIR
    shift-jax eval --workdir=DIR

FILE is PyTorch's .pth, .pt or .t7, a state dict or a whole module, of which nothing is run; or
Keras' .h5 or .npz of VGG-16 and VGG-19; or a .safetensors file of shift_jax, which knows its model
itself. All flags but those below are arguments of the model, such as --expansion=3.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from shift_jax.commands.dispatch import run
from shift_jax.commands.line import CommandLine, path


def command_line() -> CommandLine:
    """Returns what the command takes."""
    line = CommandLine(
        "import-weights",
        "Name one file and a folder to make",
        "FILE --model=shiftresnet20 --expansion=3 --output=DIR",
        takes="model arguments",
    )
    line.add_argument("file", type=path, metavar="FILE", help="The file of weights.")
    line.add_argument(
        "--model", metavar="NAME", help="Of the network; a .safetensors file knows it."
    )
    line.add_argument(
        "--output", type=path, required=True, metavar="DIR", help="Folder to make, of a run."
    )
    line.add_argument("--dataset", metavar="NAME", help="What eval is to evaluate on.")
    line.add_argument(
        "--data_dir",
        type=path,
        metavar="DIR",
        help="Where the dataset is; without it where the file says, or TFDS's default.",
    )
    line.add_argument(
        "--shift_order",
        choices=("interleaved", "grouped"),
        default="interleaved",
        help="Order of the channels that the shifts were trained in: grouped is the paper's, "
        "interleaved that of the authors' CUDA kernel.",
    )
    return line


def main(options: Namespace) -> None:
    """Imports the file."""
    import jax

    from shift_jax.training.runs.import_weights import import_weights

    imported = import_weights(
        options.file,
        options.output,
        model=options.model,
        arguments=options.arguments,
        shift_order=options.shift_order,
        dataset=options.dataset,
        data_dir=options.data_dir,
    )
    parameters = sum(leaf.size for leaf in jax.tree.leaves(imported.variables["params"]))
    print(f"{imported.model}: {parameters:,} parameters{imported.remarks}")
    print(f"written to {options.output}")
    if imported.is_classifier:
        print(f"evaluate it with: shift-jax eval --workdir={options.output}")


if __name__ == "__main__":
    sys.exit(run("import-weights"))
