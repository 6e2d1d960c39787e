"""Writes a whole dataset as one .npz file, for machines without TFDS.

    shift-jax pack-arrays --dataset=cifar100 --data_dir=DIR --output=cifar100.npz

shift-jax sweep --arrays=FILE reads the file, which needs NumPy only.
"""

from argparse import Namespace

from shift_jax.commands.line import DIR, FILE, CommandLine

line = CommandLine(
    "pack-arrays", "Name a dataset and a file", "--dataset=cifar100 --output=cifar100.npz"
)
line.add("--dataset", "Dataset to write.", choices=("digits", "cifar10", "cifar100"), required=True)
line.add("--data_dir", "TFDS's folder. Default: TFDS's own.", DIR)
line.add("--output", "File to write.", FILE, required=True)


def main(options: Namespace) -> None:
    from shift_jax.training.on_device.arrays import load_arrays, save_arrays

    arrays = load_arrays(options.dataset, data_dir=options.data_dir)
    save_arrays(options.output, arrays)
    print(
        f"{len(arrays.train_labels):,} training and {len(arrays.test_labels):,} test images are in "
        f"{options.output}"
    )


if __name__ == "__main__":
    line.run(main)
