"""Turns a file of trained weights into the folder of a run, which eval takes.

    shift-jax import-weights FILE --model=shiftresnet20 --expansion=3 --output=DIR
    shift-jax import-weights w32.caffemodel --model=as_resnet --width=32 --output=DIR
    shift-jax eval --workdir=DIR

FILE is a .pth, .pt or .t7 of PyTorch, a state dict or a whole module, none of whose code is run;
an .h5 or .npz of Keras' VGG-16 or VGG-19; a .caffemodel of AS-ResNet (Caffe); or a .safetensors
file that `shift-jax export` wrote, which names its own model. All flags but those below are
arguments of the model, such as --expansion=3.
"""

from argparse import Namespace

from shift_jax.commands.line import DIR, FILE, CommandLine

line = CommandLine(
    "import-weights",
    "Name one file and a folder to make",
    "FILE --model=shiftresnet20 --expansion=3 --output=DIR",
    takes="model arguments",
)
line.add("file", "The file of weights.", FILE, metavar="FILE")
line.add("--model", "Name of the network; a .safetensors file of shift_jax has it.", metavar="NAME")
line.add("--output", "Folder of the run to make.", DIR, required=True)
line.add("--dataset", "Dataset for eval.", metavar="NAME")
line.add(
    "--data_dir",
    "Folder of the dataset. Default: the one in the file, or TFDS's own.",
    DIR,
)
line.add(
    "--shift_order",
    "Order of the channels that the shifts were trained in: grouped is the paper's, interleaved "
    "that of the authors' CUDA kernel.",
    choices=("interleaved", "grouped"),
    default="interleaved",
)


def main(options: Namespace) -> None:
    import jax

    from shift_jax.training.runs.import_weights import import_weights

    imported = import_weights(**vars(options))
    parameters = sum(leaf.size for leaf in jax.tree.leaves(imported.variables["params"]))
    print(f"{imported.model}: {parameters:,} parameters{imported.remarks}")
    print(f"written to {options.output}")
    if imported.is_classifier:
        print(f"evaluate it with: shift-jax eval --workdir={options.output}")


if __name__ == "__main__":
    line.run(main)
