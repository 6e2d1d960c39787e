"""Figures 4 and 5: accuracy on CIFAR-100 against parameters and against multiply-accumulates.

The paper's networks are gray, ours in color, and beside them is a panel for each shorter schedule.
Both use our counts. Figure 5 uses true MACs, whereas the paper's counter takes every convolution of
a block at the block's input resolution.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from shift_jax.config import AUTHORS_EPOCHS
from shift_jax.errors import InputError
from shift_jax.paper.figures.curves import EXPANSIONS, Curve, Point, our_curves, paper_curves
from shift_jax.paper.figures.pictures import save_picture
from shift_jax.paper.sweep.results_file import Result
from shift_jax.paper.tables.published import DEPTHS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

Quantity = Literal["params", "macs"]

# Okabe and Ito's colors, which color-blind readers can tell apart; the line tells too.
_COLORS = {"ShiftResNet": "#0072B2", "ResNet": "#D55E00"}
_LINES: dict[str, Literal["-", "--"]] = {"ShiftResNet": "-", "ResNet": "--"}
_MARKERS: dict[int, str] = dict(zip(DEPTHS, "os^", strict=True))
_PAPER_COLOR = "0.62"
_SHORT_PANELS = 3
"""More would be too low to read."""
_TITLES: dict[Quantity, str] = {
    "params": "Figure 4: accuracy against parameters",
    "macs": "Figure 5: accuracy against MACs",
}
_AXIS_LABELS: dict[Quantity, str] = {
    "params": "Parameters (100 classes), logarithmic",
    "macs": "True MACs (multiply-accumulates of one image), logarithmic",
}
_NOTE = (
    "The points of a line are E = 1, 3, 6 and 9 from left to right, unless they say otherwise.\n"
    "ResNet: the better of two networks reduced to the size of ShiftResNet-E, module-wise\n"
    "and net-wise, if both were run; for E = 9, the ResNet that is not reduced."
)


def save_figure(path: str | os.PathLike[str], curves: Sequence[Curve], quantity: Quantity) -> None:
    """Draws curves of accuracy on a logarithmic axis of parameters or MACs.

    Each shorter schedule has a panel of its own, so that it does not stretch the axis of the
    paper's: the longest three of those in which both families were trained, if there are any.

    Args:
      path: the picture to write or replace; its extension decides the format, such as .png, .svg
        or .pdf. If drawing fails, an existing picture stays.
      curves: what to draw; later ones lie above.
      quantity: the horizontal axis.

    Raises:
      InputError: an unsupported image extension, or a file that cannot be written.
    """
    # They take seconds to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    schedules = _short_schedules(curves)
    figure = Figure(figsize=(9.5 if schedules else 7, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes, *panels = _panels(figure, len(schedules))
    for curve in curves:
        if curve.is_full:
            _draw(axes, curve, quantity)
    _set_axes(axes)
    axes.set(xlabel=_AXIS_LABELS[quantity], ylabel="CIFAR-100 test top-1, %")
    axes.set_title(_NOTE, loc="left", fontsize=9)
    axes.margins(x=0.09)  # For the names of our points.
    _draw_short(panels, schedules, curves, quantity)
    figure.suptitle(_TITLES[quantity], x=0.01, ha="left", fontsize=12)
    shown = [curve for curve in curves if curve.is_full or curve.epochs in schedules]
    figure.legend(
        handles=_legend(shown), loc="outside lower center", ncols=2, fontsize=9, frameon=False
    )
    save_picture(figure, path)


def _short_schedules(curves: Sequence[Curve]) -> list[float]:
    """The lengths of the schedules that have a panel."""
    families: dict[float, set[str]] = {}
    for curve in curves:
        if curve.epochs and not curve.is_full:
            families.setdefault(curve.epochs, set()).add(curve.family)
    compared = [epochs for epochs, some in families.items() if len(some) > 1]
    return sorted(compared or families, reverse=True)[:_SHORT_PANELS]


def _panels(figure: Figure, number: int) -> list[Axes]:
    """The large panel and, one above the other beside it, the small ones."""
    if not number:
        return [figure.add_subplot()]
    grid = figure.add_gridspec(number, 2, width_ratios=(2, 1))
    panels = [figure.add_subplot(grid[:, 0])]
    for row in range(number):
        shared = panels[1] if row else None
        panels.append(figure.add_subplot(grid[row, 1], sharex=shared))
        panels[-1].tick_params(labelbottom=row == number - 1)
    return panels


def _draw(axes: Axes, curve: Curve, quantity: Quantity) -> None:
    ours = curve.epochs is not None
    color = _COLORS[curve.family] if ours else _PAPER_COLOR
    # Lines break at NaN, where a network was not run.
    nan = float("nan")
    missing = Point(nan, nan, nan, nan, nan)
    points = [point or missing for point in curve.points]
    ranges = [
        (point.top1 - point.lowest, point.highest - point.top1)
        if point.highest > point.lowest
        else (float("nan"),) * 2
        for point in points
    ]
    axes.errorbar(
        [getattr(point, quantity) for point in points],
        [point.top1 for point in points],
        yerr=list(zip(*ranges, strict=True)),
        color=color,
        linestyle=_LINES[curve.family],
        linewidth=1.6 if ours else 1.1,
        marker=_MARKERS[curve.depth],
        markersize=6 if ours else 4.5,
        # Wider than the markers, behind which a small range lies.
        capsize=6,
    )
    for expansion, point in zip(EXPANSIONS, curve.points, strict=True):
        if point and (None in curve.points or point.reduction):
            _name_point(axes, curve, point, f"E = {expansion}", quantity, color)


def _name_point(
    axes: Axes, curve: Curve, point: Point, name: str, quantity: Quantity, color: str
) -> None:
    # Away from the other family, which is below ShiftResNets and above ResNets.
    above = curve.family == "ShiftResNet"
    axes.annotate(
        ", ".join(filter(None, (name, point.reduction))),
        (getattr(point, quantity), point.highest if above else point.lowest),
        xytext=(0, 6 if above else -6),
        textcoords="offset points",
        ha="center",
        va="bottom" if above else "top",
        fontsize=8,
        color=color,
    )


def _draw_short(
    panels: Sequence[Axes],
    schedules: Sequence[float],
    curves: Sequence[Curve],
    quantity: Quantity,
) -> None:
    """Draws schedules of other lengths, each in its panel, over the same horizontal axis."""
    from matplotlib.ticker import MaxNLocator

    sizes = []
    for axes, epochs in zip(panels, schedules, strict=True):
        for curve in curves:
            if curve.epochs == epochs:
                _draw(axes, curve, quantity)
                sizes += [getattr(point, quantity) for point in curve.points if point]
        _set_axes(axes)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=(1, 2, 5, 10), integer=True))
        axes.margins(y=0.18 * len(panels))  # For the names, which are as high in low panels.
        name = f"{epochs:g} epoch" + "s" * (epochs != 1)
        axes.set_title(f"Ours, {name} instead of {AUTHORS_EPOCHS}", loc="left", fontsize=9)
    if sizes:
        axes.set_xlim(min(sizes) / 2, max(sizes) * 2)  # Room for the names, and for ticks.
        axes.set_xlabel(_AXIS_LABELS[quantity].partition(" (")[0])


def _set_axes(axes: Axes) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, linewidth=0.5)


def _legend(curves: Sequence[Curve]) -> list[Line2D]:
    """Handles for a legend of two columns of the same height: the lines, and what marks them."""
    from matplotlib.lines import Line2D

    lines, marks = [], []
    for ours in (True, False):
        for family, line in _LINES.items():
            if any(c.family == family and (c.epochs is not None) == ours for c in curves):
                color = _COLORS[family] if ours else _PAPER_COLOR
                label = f"{family}, {'ours, last epoch' if ours else 'paper, best epoch'}"
                lines.append(Line2D([], [], color=color, linestyle=line, label=label))
    style: dict[str, Any] = {"color": "0.3", "linestyle": "none", "markersize": 5}
    for depth in sorted({curve.depth for curve in curves}):
        marks.append(Line2D([], [], marker=_MARKERS[depth], label=f"depth {depth}", **style))
    if any(p and p.highest > p.lowest for curve in curves for p in curve.points):
        label = "mean of the seeds, lowest and highest"
        marks.append(Line2D([], [], **{**style, "marker": "|", "markersize": 9}, label=label))
    empty = Line2D([], [], linestyle="none", label=" ")
    height = max(len(lines), len(marks))
    return [
        handle
        for column in (lines, marks)
        for handle in [*column, *[empty] * (height - len(column))]
    ]


def draw_both(results: Sequence[Result], folder: Path) -> None:
    """Writes figure4.png and figure5.png, our runs over the paper's, and prints their paths.

    Args:
      results: rows of a results file for CIFAR-100.
      folder: the folder of the pictures, created if it is missing.

    Raises:
      InputError: a folder or file that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be created ({error.strerror}): name another --output."
        ) from error
    curves = our_curves(results)
    if not curves:
        print("There is no run of these networks yet: the figures have the paper's points only.")
    pictures: dict[str, Quantity] = {"figure4.png": "params", "figure5.png": "macs"}
    for name, quantity in pictures.items():
        save_figure(folder / name, [*paper_curves(), *curves], quantity)
        print(folder / name)
