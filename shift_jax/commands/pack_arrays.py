"""Writes a whole dataset as one .npz file, for machines without TFDS.

    shift-jax pack-arrays --dataset=cifar100 --data_dir=DIR --output=cifar100.npz

Reading the file needs NumPy only; shift-jax sweep --arrays=FILE does.
"""

from __future__ import annotations

import sys
from argparse import Namespace

from shift_jax.commands.dispatch import run
from shift_jax.commands.line import CommandLine, path


def command_line() -> CommandLine:
    """Returns what the command takes."""
    line = CommandLine(
        "pack-arrays", "Name a dataset and a file", "--dataset=cifar100 --output=cifar100.npz"
    )
    line.add_argument(
        "--dataset", choices=("digits", "cifar10", "cifar100"), required=True, help="Which one."
    )
    line.add_argument(
        "--data_dir", type=path, metavar="DIR", help="TFDS's folder; without it TFDS's default."
    )
    line.add_argument("--output", type=path, required=True, metavar="FILE", help="File to write.")
    return line


def main(options: Namespace) -> None:
    """Writes the file."""
    from shift_jax.training.on_device.arrays import load_arrays, save_arrays

    arrays = load_arrays(options.dataset, data_dir=options.data_dir)
    save_arrays(options.output, arrays)
    print(
        f"{len(arrays.train_labels):,} training and {len(arrays.test_labels):,} test images are in "
        f"{options.output}"
    )


if __name__ == "__main__":
    sys.exit(run("pack-arrays"))
