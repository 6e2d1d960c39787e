"""Draws Figures 7 and 8 of a trained shift network and lists its redundant channels.

    shift-jax figures --workdir=runs/shiftresnet20-3
    shift-jax figures --weights=shiftresnet20.digits --output=DIR

Draws figure7.png (the contributions of one module's channels and directions) and figure8.png (the
correlations of its channels on test images), and writes redundant_pairs.csv. Of a network that
learned its shifts it draws offsets.png instead: where the channels of each layer look.
"""

from argparse import Namespace
from pathlib import Path

from shift_jax.commands.line import DIR, CommandLine, number

line = CommandLine("figures")
line.add("--workdir", "Folder of a run.", DIR)
line.add("--weights", "Name of a shipped network instead.", metavar="NAME")
line.add(
    "--module",
    "Path of a module, such as group1_block2. Default: the first module that keeps its number "
    "of channels.",
    metavar="PATH",
)
line.add("--split", "Split of the images. Default: the evaluation split.")
line.add(
    "--num_images", "Number of images, spread evenly over the split.", number(int), default=1000
)
line.add(
    "--threshold",
    "Channels with a larger |correlation| are redundant.",
    number(float),
    default=0.9,
)
line.add("--data_dir", "Folder of the dataset. Default: the config's, or TFDS's own.", DIR)
line.add("--output", "Folder for the files. Default: the run's folder, or the current one.", DIR)


def main(options: Namespace) -> None:
    from shift_jax.paper.figures.learned_offsets import draw_offsets, learned_offsets
    from shift_jax.paper.figures.section_4 import draw_figures
    from shift_jax.paper.figures.trained_network import trained_network

    network = trained_network(options.workdir, options.weights, options.data_dir)
    folder = options.output or options.workdir or Path()
    if offsets := learned_offsets(network.variables):
        draw_offsets(offsets, network.name, folder)
        return
    draw_figures(
        network,
        folder,
        module=options.module,
        split=options.split,
        num_images=options.num_images,
        threshold=options.threshold,
    )


if __name__ == "__main__":
    line.run(main)
