"""Figures 7 and 8 for any trained shift network, and Section 4.1's list of redundant channels.

Figure 7 shows the contributions of one module's channels and directions, Figure 8 the correlations
of its channels on test images.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from absl import logging

from shift_jax.errors import positive_int
from shift_jax.files import replaced_file
from shift_jax.paper.figures.contributions import (
    ModuleContributions,
    channel_contributions,
    direction_map,
    direction_names,
    find_module,
)
from shift_jax.paper.figures.correlations import (
    GroupCorrelations,
    RedundantPair,
    redundant_pairs,
    shifted_activations,
)
from shift_jax.paper.figures.drawings import save_contributions, save_correlations
from shift_jax.paper.figures.pictures import create_folder
from shift_jax.paper.figures.trained_network import TrainedNetwork

# With fewer images, or pixels for each channel of a group, chance alone correlates channels.
_FEW = 100


def draw_figures(
    network: TrainedNetwork,
    output: Path,
    *,
    module: str | None = None,
    split: str | None = None,
    num_images: int = 1000,
    threshold: float = 0.9,
) -> None:
    """Draws both figures, writes the list of pairs, and prints a line for each.

    Figure 7 needs no images and is drawn even without the dataset.

    Args:
      network: a shift network of any kernel size.
      output: the folder of the three files, created if it is missing.
      module: the path of a module or `ShiftConv`; None as in `find_module`.
      split: a split of the network's dataset; None for the one it was evaluated on.
      num_images: the number of images, spread evenly over the split.
      threshold: the |correlation| above which a pair is redundant.

    Raises:
      InputError: a network without shifts, or bad input for the functions called here.
    """
    positive_int("num_images", num_images)
    contributions = channel_contributions(network.model, network.variables, network.image_shape)
    chosen = find_module(contributions, module)
    redundant_pairs([], [], threshold)  # A bad threshold fails before the images are read.
    create_folder(output)
    save_contributions(output / "figure7.png", chosen, network.name)
    print(f"{output / 'figure7.png'}: {_strongest(chosen)}")

    split = split or network.split
    activations = shifted_activations(network.model, chosen.layer)
    correlations = GroupCorrelations(chosen.shift_groups)
    count = 0
    for images in network.images(split, num_images):
        correlations.add(np.asarray(activations(network.variables, images)))
        count += len(images)
    matrices = correlations.matrices()
    pairs = redundant_pairs(chosen.shift_groups, matrices, threshold)
    pixels = f"{correlations.count:,} pixels of {count:,} image{'s' * (count != 1)}"
    title = f"{pixels} of {split}"
    if are_few(count, correlations.count, chosen):
        logging.warning(
            "The correlations come from %s, too few to tell redundant channels from chance: "
            "give a larger --num_images.",
            pixels,
        )
    save_correlations(output / "figure8.png", chosen, matrices, network.name, title)
    print(f"{output / 'figure8.png'}: {_largest(matrices)}, on {title}")
    table = output / "redundant_pairs.csv"
    _write_pairs(table, chosen, pairs)
    possible = sum(len(group) * (len(group) - 1) // 2 for group in chosen.shift_groups)
    print(
        f"{table}: {len(pairs):,} of {possible:,} pairs have a correlation above {threshold:g} or "
        f"below -{threshold:g}"
    )


def are_few(images: int, pixels: int, module: ModuleContributions) -> bool:
    """Whether chance alone may correlate channels over so many pixels of all images."""
    largest = max(len(group) for group in module.shift_groups)
    # Neighboring pixels are much alike, so that many pixels of few images are too few.
    return images < _FEW or pixels < _FEW * largest


def _strongest(contributions: ModuleContributions) -> str:
    means = direction_map(contributions).ravel()
    names = direction_names(contributions.kernel_size)
    ranked = [i for i in np.argsort(-means) if not np.isnan(means[i])]
    shares = [f"{names[i]} {means[i] / (means[ranked[0]] or 1):.2f}" for i in ranked]
    return (
        f"{contributions.layer}, {len(contributions.norms)} channels; mean contribution of the "
        f"directions {', '.join(shares[:9])}{' …' if len(shares) > 9 else ''}"
    )


def _largest(matrices: list[np.ndarray]) -> str:
    pairs = np.concatenate([np.abs(m[np.triu_indices(len(m), 1)]) for m in matrices])
    pairs = pairs[~np.isnan(pairs)]
    if not pairs.size:
        return "no group has two channels that vary"
    return (
        f"|correlation| of two channels of a group {np.median(pairs):.2f} in the median, "
        f"{pairs.max():.2f} at most"
    )


def _write_pairs(path: Path, module: ModuleContributions, pairs: list[RedundantPair]) -> None:
    names = direction_names(module.kernel_size)
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("layer", "direction", "dy", "dx", "channel_1", "channel_2", "correlation"))
    for pair in pairs:
        dy, dx = module.offsets[pair.first]
        cells = (pair.first, pair.second, f"{pair.correlation:.4f}")
        rows.writerow((module.layer, names[pair.direction], dy, dx, *cells))
    with replaced_file(path) as temporary:
        temporary.write_text(text.getvalue())
