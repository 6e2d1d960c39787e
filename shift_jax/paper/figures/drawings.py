"""Draws Figures 7 and 8: the contributions of shifted channels and their redundancy."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from shift_jax.errors import InputError
from shift_jax.paper.figures.contributions import (
    ModuleContributions,
    direction_map,
    direction_names,
    ranked_groups,
)
from shift_jax.paper.figures.pictures import save_picture

if TYPE_CHECKING:
    from jaxtyping import Float, Int
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Color-blind readers can read both. Yellow is the highest magnitude, as in the paper; blue, white
# and red show the sign.
_MAGNITUDES, _SIGNS = "viridis", "RdBu_r"
_LARGEST_WINDOW = 11
_WIDTH = 7.0
"""Width of both figures in inches."""


def save_contributions(
    path: str | os.PathLike[str], contributions: ModuleContributions, network: str
) -> None:
    """Draws Figure 7: channels ranked within their shift groups, and the map of the directions.

    Channels are divided by the largest one, the means of the directions by the largest mean.

    Args:
      path: the picture to write; its extension decides the format.
      contributions: the contributions of the module.
      network: the network's name, for the title.

    Raises:
      InputError: too many directions to draw, or a file that cannot be written.
    """
    figure = _new_figure(contributions, height=3.4)
    bars, grid = figure.subplots(1, 2, width_ratios=(2.1, 1))
    _draw_bars(bars, contributions)
    _draw_map(grid, contributions)
    heading = "Figure 7: normalized channel contributions ‖P$_{m{,}{:}}$‖$_2$"
    _set_title(figure, heading, contributions, network)
    if contributions.kernel_size == 3:
        figure.supxlabel(
            "Where channels of a group look: T = top, B = bottom, L = left, R = right, C = center",
            fontsize=9,
        )
    else:
        figure.supxlabel("Where the channels of a group look: down,right in steps", fontsize=9)
    save_picture(figure, path)


def save_correlations(
    path: str | os.PathLike[str],
    contributions: ModuleContributions,
    matrices: Sequence[Float[np.ndarray, "n n"]],
    network: str,
    images: str,
) -> None:
    """Draws Figure 8: the correlation matrix of each shift group, at the place of its direction.

    Args:
      path: the picture to write; its extension decides the format.
      contributions: the contributions of the module, with its directions and channels.
      matrices: the matrix of each group, from `GroupCorrelations.matrices`.
      network: the network's name, for the title.
      images: a description of the images, for the title.

    Raises:
      InputError: too many directions to draw, or a file that cannot be written.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    size = contributions.kernel_size
    figure = _new_figure(contributions, height=6.6)
    colors = colormaps[_SIGNS].with_extremes(bad="0.75")
    axes = figure.subplots(size, size, squeeze=False)
    cells = zip(axes.flat, direction_names(size), contributions.shift_groups, matrices, strict=True)
    for cell, name, channels, matrix in cells:
        cell.set(xticks=[], yticks=[])
        numbers = f": {_numbers(channels)}" if size == 3 and len(channels) > 1 else ""
        cell.set_title(name + numbers, fontsize=9 if size == 3 else 8, pad=3)
        if len(channels) < 2:
            cell.set_facecolor("0.95")
            why = f"channel {channels[0]} alone" if channels.size else "none"
            style = {"fontsize": 9 if size == 3 else 6, "ha": "center", "va": "center"}
            cell.text(0.5, 0.5, why, transform=cell.transAxes, **style)
            continue
        cell.imshow(matrix, cmap=colors, vmin=-1, vmax=1, interpolation="nearest")
    scale = ScalarMappable(Normalize(-1, 1), colors)
    bar = figure.colorbar(scale, ax=axes, fraction=0.04, shrink=0.6, ticks=[-1, -0.5, 0, 0.5, 1])
    bar.set_label("correlation", fontsize=10)
    heading = "Figure 8: channel correlations within each shift group"
    _set_title(figure, heading, contributions, network)
    constant = sum(int(np.isnan(matrix.diagonal()).sum()) for matrix in matrices)
    note = f"; gray: {constant} whose activations are constant" if constant else ""
    numbered = " by direction, with their numbers" if size == 3 else ""
    figure.supxlabel(f"Channels of each group{numbered}; over {images}{note}", fontsize=9)
    save_picture(figure, path)


def _numbers(channels: Int[np.ndarray, " n"]) -> str:
    """Channels of a group in short: "0–4", or "20–24, 45–47" for a center with leftovers."""
    runs = np.split(channels, np.flatnonzero(np.diff(channels) > 1) + 1)
    if len(runs) > 2:  # Interleaved.
        return f"{channels[0]}, {channels[1]} … {channels[-1]}"
    return ", ".join(f"{run[0]}–{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def _new_figure(contributions: ModuleContributions, height: float) -> Figure:
    # Unlike pyplot, Figure needs no window system and has no global state. Importing takes seconds.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if contributions.kernel_size > _LARGEST_WINDOW:
        raise InputError(
            f"The offsets of {contributions.layer} span {contributions.kernel_size}² directions, "
            f"more than the {_LARGEST_WINDOW}² that can be drawn: name another module."
        )
    figure = Figure(figsize=(_WIDTH, height), dpi=200, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _set_title(
    figure: Figure, heading: str, contributions: ModuleContributions, network: str
) -> None:
    sizes = (contributions.in_channels, len(contributions.norms), contributions.out_channels)
    where = f"{network}, {contributions.layer} ({' → '.join(map(str, sizes))} channels)"
    figure.suptitle(f"{heading}\n{where}", fontsize=10)


def _draw_bars(axes: Axes, contributions: ModuleContributions) -> None:
    from matplotlib import colormaps

    heights = contributions.norms / (contributions.norms.max() or 1)
    groups = ranked_groups(contributions)
    gap = max(1.0, len(heights) / len(groups) / 8)
    left, ticks = 0.0, []
    for channels in groups:
        places = left + np.arange(len(channels))
        axes.bar(
            places, heights[channels], width=1.0, color=colormaps[_MAGNITUDES](heights[channels])
        )
        # A direction without channels keeps a place for its name.
        width = max(len(channels), gap)
        ticks.append(left + (width - 1) / 2)
        left += width + gap
    axes.set_xticks(
        ticks,
        direction_names(contributions.kernel_size),
        fontsize=9 if contributions.kernel_size == 3 else 7,
        rotation=0 if contributions.kernel_size == 3 else 90,
    )
    axes.tick_params(axis="x", length=0)
    axes.set(xlim=(-gap, left), ylim=(0, 1.03))
    axes.set_title("Channels, ranked in each group", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_map(axes: Axes, contributions: ModuleContributions) -> None:
    from matplotlib import colormaps

    size = contributions.kernel_size
    means = direction_map(contributions)
    means = means / (np.nanmax(means) or 1)
    axes.imshow(means, cmap=colormaps[_MAGNITUDES].with_extremes(bad="0.95"), vmin=0, vmax=1)
    for (row, column), value in np.ndenumerate(means):
        axes.text(
            column,
            row,
            "none" if np.isnan(value) else f"{value:.2f}",
            ha="center",
            va="center",
            fontsize={3: 11, 5: 7}.get(size, 5),
            color="white" if value < 0.6 else "black",
        )
    steps = direction_names(size)
    if size == 3:
        rows, columns = ["T", "C", "B"], ["L", "C", "R"]
    else:
        columns = [name.split(",")[1] for name in steps[:size]]
        rows = columns
    axes.set_xticks(range(size), columns, fontsize=9)
    axes.set_yticks(range(size), rows, fontsize=9)
    axes.tick_params(length=0)
    axes.set_title("Mean of each group", fontsize=10)
