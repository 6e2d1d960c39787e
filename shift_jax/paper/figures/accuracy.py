"""Figures 4 and 5: accuracy on CIFAR-100 against parameters and against multiply-accumulates.

    python -m shift_jax.paper.figures.accuracy --results=results/cifar100.csv \\
        --output=docs/pictures

draws figure4.png and figure5.png: our runs in colour, the paper's in grey, and beside them our runs
of other schedules than the paper's. Both are drawn over our
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

from shift_jax.errors import InputError
from shift_jax.paper.figures.pictures import save_picture
from shift_jax.paper.sweep.network_runs import grouped_runs, rows_of_flag
from shift_jax.paper.sweep.networks import EPOCHS
from shift_jax.paper.sweep.results_file import Result
from shift_jax.paper.tables.published import DEPTHS, families, network_name
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
    "The points of a line, from left to right: E = 1, 3, 6 and 9, where no other is written.\n"
    "ResNet: the better of two networks reduced to the size of ShiftResNet-E, module-wise and\n"
    "net-wise, where both were run; for E = 9 the ResNet that is not reduced."
)


class Point(NamedTuple):
    """One network; top-1 in percent.

    Attributes:
      params: trained parameters.
      macs: true multiply-accumulates of one image.
      top1: mean over the seeds.
      lowest: of the seeds.
      highest: likewise.
      reduction: "module-wise" or "net-wise" where only one of the two was run.
    """

    params: int
    macs: int
    top1: float
    lowest: float
    highest: float
    reduction: str = ""


class Curve(NamedTuple):
    """One family at one depth.

    Attributes:
      family: "ShiftResNet" or "ResNet".
      depth: 20, 56 or 110.
      epochs: of the schedule; None for the paper's.
      points: of E = 1, 3, 6 and 9; None where nothing was run.
    """

    family: Literal["ShiftResNet", "ResNet"]
    depth: int
    epochs: float | None
    points: tuple[Point | None, ...]

    @property
    def is_full(self) -> bool:
        """Whether it was trained as long as the paper's networks."""
        return self.epochs in (None, EPOCHS)


def paper_curves() -> list[Curve]:
    """Returns the paper's best epochs (Table 5) over our counts of the networks it trained."""
    cells = {name: cell for family in families()[:-1] for name, cell in family.networks.items()}
    points = {
        name: Point(cell.params, cell.macs, *[cell.cifar100] * 3) for name, cell in cells.items()
    }
    return _curves(points, None)


def our_curves(results: Iterable[Result]) -> list[Curve]:
    """Returns the last epochs of our runs, a curve for each schedule, short ones first.

    Rows of other networks than Table 5's ShiftResNets and ResNets, of other recipes and of trained
    offsets are left out.
    """
    points: dict[float, dict[str, Point]] = {}
    for group in grouped_runs(run for run in results if run.is_controlled):
        last, run = group.values("last_top1"), group.runs[-1]
        point = Point(run.params, run.macs, group.mean("last_top1"), min(last), max(last))
        points.setdefault(group.epochs, {})[group.name] = point
    return [curve for epochs in sorted(points) for curve in _curves(points[epochs], epochs)]


def _curves(points: dict[str, Point], epochs: float | None) -> list[Curve]:
    curves = []
    for depth in DEPTHS:
        shift = [[network_name(f"shiftresnet{depth}", expansion)] for expansion in _EXPANSIONS]
        resnet = [
            [
                network_name(f"resnet{depth}", expansion, reduction)
                for reduction in ("module", "net")
            ]
            for expansion in _EXPANSIONS[:-1]
        ]
        for family, choices in (("ShiftResNet", shift), ("ResNet", [*resnet, [f"resnet{depth}"]])):
            row = tuple(_better(points, names) for names in choices)
            if any(row):
                curves.append(Curve(family, depth, epochs, row))
    return curves


def _better(points: dict[str, Point], names: Sequence[str]) -> Point | None:
    found = {name: points[name] for name in names if name in points}
    if not found:
        return None
    name, point = max(found.items(), key=lambda item: item[1].top1)
    is_alone = len(found) < len(names)
    return point._replace(reduction=f"{name.split('-')[1]}-wise") if is_alone else point


def save_figure(
    path: str | os.PathLike[str],
    curves: Sequence[Curve],
    quantity: Literal["params", "macs"],
) -> None:
    """Draws curves of accuracy on a logarithmic axis of parameters or MACs.

    Schedules of other lengths have a panel of their own beside, so that the axis of the paper's and
    our full ones is not stretched.

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

    others = [curve for curve in curves if not curve.is_full]
    figure = Figure(figsize=(9.5 if others else 7, 5.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    if others:
        axes, beside = figure.subplots(1, 2, width_ratios=(2, 1))
        _draw_beside(beside, others, quantity)
    else:
        axes = figure.add_subplot()
    for curve in curves:
        if curve.is_full:
            _draw(axes, curve, quantity)
    _label(axes, quantity)
    axes.margins(x=0.09)  # For the names of our points.
    title = {
        "params": "Figure 4: accuracy against parameters",
        "macs": "Figure 5: accuracy against MACs",
    }
    figure.suptitle(title[quantity], x=0.01, ha="left", fontsize=12)
    figure.legend(
        handles=_legend(curves), loc="outside lower center", ncols=2, fontsize=9, frameon=False
    )
    save_picture(figure, path)


def _draw(axes: Axes, curve: Curve, quantity: str) -> None:
    ours = curve.epochs is not None
    color = _COLORS[curve.family] if ours else _PAPER_COLOR
    # Lines break at NaN, where a network was not run.
    missing = Point(*[float("nan")] * 5)
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
        markerfacecolor=color if curve.is_full else "white",
        # Wider than the markers, behind which a small range lies.
        capsize=6,
    )
    for expansion, point in zip(_EXPANSIONS, curve.points, strict=True):
        if point and (None in curve.points or point.reduction):
            _name_point(axes, curve, point, expansion, quantity, color)


def _name_point(
    axes: Axes, curve: Curve, point: Point, expansion: int, quantity: str, color: str
) -> None:
    name = f"E = {expansion}" + ("" if curve.is_full else f", {curve.epochs:g} ep.")
    axes.annotate(
        "\n".join(filter(None, (point.reduction, name))),
        (getattr(point, quantity), point.highest),
        xytext=(0, 7),
        textcoords="offset points",
        ha="center",
        fontsize=9,
        color=color,
    )


def _draw_beside(axes: Axes, curves: Sequence[Curve], quantity: str) -> None:
    """Draws the schedules of other lengths."""
    for curve in curves:
        _draw(axes, curve, quantity)
    _label(axes, quantity)
    sizes = [getattr(point, quantity) for curve in curves for point in curve.points if point]
    axes.set_xlim(min(sizes) / 2, max(sizes) * 2)  # Room for the names, and for ticks.
    axes.margins(y=0.15)
    axes.set_title("Our runs of other\nnumbers of epochs", loc="left", fontsize=9)
    axes.set(xlabel="", ylabel="")


def _label(axes: Axes, quantity: str) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    name = {
        "params": "Parameters (100 classes), logarithmic",
        "macs": "True multiply-accumulates (MACs) of one image, logarithmic",
    }
    axes.set_xscale("log")
    axes.set_xlabel(name[quantity])
    axes.set_ylabel("CIFAR-100 test top-1, %")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.set_title(_NOTE, loc="left", fontsize=9)


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
    short = sorted({curve.epochs for curve in curves if not curve.is_full})
    if short:
        epochs = re.sub(r", (\S+)$", r" or \1", ", ".join(f"{number:g}" for number in short))
        label = f"hollow: {epochs} epochs instead of {EPOCHS}"
        marks.append(Line2D([], [], marker="o", markerfacecolor="white", label=label, **style))
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
    draw_both(rows_of_flag(_RESULTS), Path(_OUTPUT.value))


if __name__ == "__main__":
    _RESULTS = flags.DEFINE_string("results", "results/cifar100.csv", "The sweep's results file.")
    _OUTPUT = flags.DEFINE_string("output", "docs/pictures", "Folder for the pictures.")
    sys.exit(cli.run(main))
