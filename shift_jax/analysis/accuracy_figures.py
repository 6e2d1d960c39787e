"""Figures 4 and 5: accuracy on CIFAR-100 against parameters and against multiply-accumulates.

    python -m shift_jax.analysis.accuracy_figures --results=results/cifar100.csv \\
        --output=docs/pictures

draws figure4.png and figure5.png: our runs in colour, the paper's in grey. Both are drawn over our
counts, and Figure 5 over true MACs; the paper's counter takes every convolution of a block at the
block's input resolution.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from absl import flags

from shift_jax.analysis.pictures import save_picture
from shift_jax.analysis.published import DEPTHS, cell_name, families
from shift_jax.analysis.results_file import Result, read_results
from shift_jax.analysis.sweep_cells import EPOCHS
from shift_jax.analysis.trained_cells import trained_cells
from shift_jax.errors import InputError
from shift_jax.training import cli

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_EXPANSIONS = (1, 3, 6, 9)
# Okabe and Ito's colours, which colour-blind readers can tell apart; the line tells too.
_COLORS = {"ShiftResNet": "#0072B2", "ResNet": "#D55E00"}
_LINES = {"ShiftResNet": "-", "ResNet": "--"}
_MARKERS = dict(zip(DEPTHS, "os^", strict=True))
_PAPER_COLOR = "0.62"
_NOTE = (
    "The points of a line, from left to right, are those of E = 1, 3, 6 and 9. ResNet: the better "
    "of two networks reduced\n"
    "to the size of ShiftResNet-E, module-wise and net-wise; its last point is the ResNet that is "
    "not reduced."
)


class Point(NamedTuple):
    """One network; top-1 in percent.

    Attributes:
      params: trained parameters.
      macs: true multiply-accumulates of one image.
      top1: mean over the seeds.
      lowest: of the seeds.
      highest: likewise.
    """

    params: int
    macs: int
    top1: float
    lowest: float
    highest: float


class Curve(NamedTuple):
    """One family at one depth.

    Attributes:
      family: "ShiftResNet" or "ResNet".
      depth: 20, 56 or 110.
      epochs: of the schedule; None for the paper's.
      points: in the order of E.
    """

    family: Literal["ShiftResNet", "ResNet"]
    depth: int
    epochs: float | None
    points: tuple[Point, ...]


def paper_curves() -> list[Curve]:
    """Returns the paper's best epochs (Table 5) over our counts of the networks it trained."""
    cells = {name: cell for family in families()[:-1] for name, cell in family.cells.items()}
    points = {
        name: Point(cell.params, cell.macs, *[cell.cifar100] * 3) for name, cell in cells.items()
    }
    return _curves(points, None)


def our_curves(results: Iterable[Result]) -> list[Curve]:
    """Returns the last epochs of our runs, a curve for each schedule, short ones first.

    Rows of other networks than Table 5's ShiftResNets and ResNets are left out.
    """
    points: dict[float, dict[str, Point]] = {}
    for cell in trained_cells(results):
        last, run = cell.values("last_top1"), cell.runs[-1]
        point = Point(run.params, run.macs, cell.mean("last_top1"), min(last), max(last))
        points.setdefault(cell.epochs, {})[cell.name] = point
    return [curve for epochs in sorted(points) for curve in _curves(points[epochs], epochs)]


def _curves(points: dict[str, Point], epochs: float | None) -> list[Curve]:
    curves = []
    for depth in DEPTHS:
        shift = [[cell_name(f"shiftresnet{depth}", expansion)] for expansion in _EXPANSIONS]
        resnet = [
            [cell_name(f"resnet{depth}", expansion, reduction) for reduction in ("module", "net")]
            for expansion in _EXPANSIONS[:-1]
        ]
        for family, choices in (("ShiftResNet", shift), ("ResNet", [*resnet, [f"resnet{depth}"]])):
            found = [[points[name] for name in names if name in points] for names in choices]
            best = tuple(max(some, key=lambda point: point.top1) for some in found if some)
            if best:
                curves.append(Curve(family, depth, epochs, best))
    return curves


def save_figure(
    path: str | os.PathLike[str],
    curves: Sequence[Curve],
    quantity: Literal["params", "macs"],
) -> None:
    """Draws curves of accuracy on a logarithmic axis of parameters or MACs.

    Args:
      path: where to write; the ending decides the format, such as .png, .svg or .pdf. A picture
        that is there is replaced at once, or kept where drawing fails.
      curves: what to draw; later ones lie above.
      quantity: the horizontal axis.

    Raises:
      InputError: an ending that is no picture, or a file that cannot be written.
    """
    # They take seconds to import.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for curve in curves:
        _draw(axes, curve, quantity)
    _label(axes, quantity)
    figure.legend(
        handles=_legend(curves), loc="outside lower center", ncols=2, fontsize=9, frameon=False
    )
    save_picture(figure, path)


def _draw(axes: Axes, curve: Curve, quantity: str) -> None:
    ours, full = curve.epochs is not None, curve.epochs in (None, EPOCHS)
    color = _COLORS[curve.family] if ours else _PAPER_COLOR
    x = [getattr(point, quantity) for point in curve.points]
    y = [point.top1 for point in curve.points]
    axes.errorbar(
        x,
        y,
        yerr=[
            [point.top1 - point.lowest for point in curve.points],
            [point.highest - point.top1 for point in curve.points],
        ],
        color=color,
        linestyle=_LINES[curve.family],
        linewidth=1.6 if ours else 1.1,
        marker=_MARKERS[curve.depth],
        markersize=6 if ours else 4.5,
        markerfacecolor=color if full else "white",
        capsize=3 if any(point.highest > point.lowest for point in curve.points) else 0,
    )
    if not full:
        axes.annotate(
            f"{curve.epochs:g} ep.",
            (x[-1], y[-1]),
            xytext=(7, -3),
            textcoords="offset points",
            fontsize=8,
            color=color,
        )


def _label(axes: Axes, quantity: str) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    name = {
        "params": "Parameters (100 classes), logarithmic",
        "macs": "True multiply-accumulates (MACs) of one image, logarithmic",
    }
    title = {
        "params": "Figure 4: accuracy against parameters",
        "macs": "Figure 5: accuracy against MACs",
    }
    axes.set_xscale("log")
    axes.set_xlabel(name[quantity])
    axes.set_ylabel("CIFAR-100 test top-1, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.set_title(_NOTE, loc="left", fontsize=8)
    axes.figure.suptitle(title[quantity], x=0.01, ha="left", fontsize=12)


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
    style = {"color": "0.3", "linestyle": "none", "markersize": 5}
    for depth in sorted({curve.depth for curve in curves}):
        marks.append(Line2D([], [], marker=_MARKERS[depth], label=f"depth {depth}", **style))
    short = sorted({c.epochs for c in curves if c.epochs not in (None, EPOCHS)})
    if short:
        epochs = re.sub(r", (\S+)$", r" or \1", ", ".join(f"{number:g}" for number in short))
        label = f"hollow: {epochs} epochs instead of {EPOCHS}"
        marks.append(Line2D([], [], marker="o", markerfacecolor="white", label=label, **style))
    if any(point.highest > point.lowest for curve in curves for point in curve.points):
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
    """Writes figure4.png and figure5.png, our runs over the paper's, and prints where they are.

    Args:
      results: rows of a results file for CIFAR-100.
      folder: is made where it is missing.

    Raises:
      InputError: a folder or file that cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made ({error.strerror}): give another --output."
        ) from error
    curves = our_curves(results)
    if not curves:
        print("There is no run of these networks yet: the figures have the paper's points only.")
    for name, quantity in (("figure4.png", "params"), ("figure5.png", "macs")):
        save_figure(folder / name, [*paper_curves(), *curves], quantity)
        print(folder / name)


def main() -> None:
    """Reads the flags and draws."""
    draw_both(read_results(_RESULTS.value), Path(_OUTPUT.value))


if __name__ == "__main__":
    _RESULTS = flags.DEFINE_string("results", "results/cifar100.csv", "The sweep's results file.")
    _OUTPUT = flags.DEFINE_string("output", "docs/pictures", "Folder for the pictures.")
    sys.exit(cli.run(main))
