"""Makes a run's folder, which `eval.py` takes, from a file of trained weights.

    python -m shift_jax.weights.import_torch FILE --model=shiftresnet20 --expansion=3 --output=DIR
    python eval.py --workdir=DIR

FILE is PyTorch's .pth, .pt or .t7, a state dict or a whole module, of which nothing is run; or
Keras' .h5 or .npz of VGG-16 and VGG-19; or a .safetensors file of shift_jax, which knows its
--model itself. Further --key=value are the model's arguments. --dataset=NAME and --data_dir=DIR
say what eval.py is to evaluate on, --shift_order=grouped that the shifts were trained in the
paper's order and not in that of the authors' CUDA kernel.
"""

import sys


def main(arguments: list[str]) -> None:
    """Imports the file that the command line names."""
    import jax

    from shift_jax.errors import InputError
    from shift_jax.models.arguments import split_arguments
    from shift_jax.training.runs.import_weights import import_weights

    if {"--help", "-h"} & set(arguments):
        print(__doc__)
        return
    options = dict.fromkeys(("model", "output", "dataset", "data_dir"))
    files, options, model_arguments = split_arguments(
        arguments, options | {"shift_order": "interleaved"}
    )
    output = options.pop("output")
    if len(files) != 1 or not output:
        raise InputError(
            "Name one file and a folder to make, as in python -m shift_jax.weights.import_torch "
            "FILE --model=shiftresnet20 --expansion=3 --output=DIR."
        )
    imported = import_weights(files[0], output, arguments=model_arguments, **options)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(imported.variables["params"]))
    print(f"{imported.model}: {parameters:,} parameters{imported.remarks}")
    print(f"written to {output}")
    if imported.is_classifier:
        print(f"evaluate it with: python eval.py --workdir={output}")


if __name__ == "__main__":
    from functools import partial

    from shift_jax.training import cli

    sys.exit(cli.run(partial(main, sys.argv[1:]), argv=sys.argv[:1]))
