"""Where the channels of each layer of a trained network look, if it learned its shifts."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from flax.traverse_util import flatten_dict

from shift_jax.paper.figures.pictures import create_folder, save_picture

if TYPE_CHECKING:
    from jaxtyping import Float

_COLUMNS = 5


def learned_offsets(variables: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "c 2"]]:
    """Returns the (dy, dx) in pixels of each layer that learns them, by the layer's path."""
    leaves = flatten_dict(dict(variables["params"]), sep="/")
    return {
        path.removesuffix("/offsets"): np.asarray(leaf, np.float64)
        for path, leaf in leaves.items()
        if path.endswith("/offsets")
    }


def draw_offsets(
    offsets: Mapping[str, Float[np.ndarray, "c 2"]], network: str, folder: Path
) -> None:
    """Draws offsets.png, a map of the offsets of every layer, and prints a line about them.

    Args:
      offsets: of `learned_offsets`; not empty.
      network: its name, for the title.
      folder: of the picture, created if it is missing.

    Raises:
      InputError: a file that cannot be written.
    """
    create_folder(folder)
    picture = folder / "offsets.png"
    save_offsets(picture, offsets, network)
    every = np.concatenate(list(offsets.values()))
    low, high = np.quantile(every, [0.05, 0.95])
    near = np.abs(every - np.round(every)) < 0.05
    print(
        f"{picture}: {len(every):,} channels in {len(offsets)} layers; 5 % of the offsets are "
        f"below {low:.2f} and 5 % above {high:.2f}, the largest is {np.abs(every).max():.2f} "
        f"pixels, and {near.mean():.0%} lie within 0.05 of an integer"
    )


def save_offsets(
    path: str | os.PathLike[str],
    offsets: Mapping[str, Float[np.ndarray, "c 2"]],
    network: str,
) -> None:
    """Draws one map for each layer, all to the same scale, with lines at whole pixels.

    Args:
      path: the picture to write; its extension decides the format.
      offsets: (dy, dx) of the channels of each layer; not empty.
      network: its name, for the title.

    Raises:
      InputError: a file that cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(_COLUMNS, len(offsets))
    rows = math.ceil(len(offsets) / columns)
    figure = Figure(figsize=(1.9 * columns + 0.6, 2.1 * rows + 0.8), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    reach = math.ceil(max(np.abs(table).max() for table in offsets.values())) or 1
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for axes in grid.ravel()[len(offsets) :]:
        axes.set_axis_off()
    for axes, (layer, table) in zip(grid.ravel(), offsets.items(), strict=False):
        axes.scatter(table[:, 1], table[:, 0], s=6, alpha=0.6, linewidths=0)
        axes.set_title(f"{layer.removesuffix('/shift')} ({len(table)})", fontsize=7)
        axes.set_aspect("equal")
        # Down is down, as in images.
        axes.set(xlim=(-reach, reach), ylim=(reach, -reach))
        axes.set_xticks(range(-reach, reach + 1), minor=reach > 3)
        axes.set_yticks(range(-reach, reach + 1), minor=reach > 3)
        axes.grid(which="both", linewidth=0.4)
        axes.tick_params(labelsize=7)
    figure.suptitle(f"{network}: where the channels of each layer look", fontsize=10)
    figure.supxlabel("dx in pixels", fontsize=9)
    figure.supylabel("dy in pixels", fontsize=9)
    save_picture(figure, path)
