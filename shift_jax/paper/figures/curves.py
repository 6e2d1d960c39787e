"""What Figures 4 and 5 show: accuracy, parameters and MACs of the paper's networks and of ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from shift_jax.config import AUTHORS_EPOCHS
from shift_jax.paper.sweep.network_runs import grouped_runs
from shift_jax.paper.sweep.results_file import Result
from shift_jax.paper.tables.published import DEPTHS, families, network_name

EXPANSIONS = (1, 3, 6, 9)


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

    params: float
    macs: float
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
        return self.epochs in (None, AUTHORS_EPOCHS)


def paper_curves() -> list[Curve]:
    """Returns the paper's best epochs (Table 5) over our counts of the networks it trained."""
    cells = {name: cell for family in families()[:-1] for name, cell in family.networks.items()}
    points = {}
    for name, cell in cells.items():
        top1, params, macs = cell.cifar100, cell.params, cell.macs
        assert top1 is not None and params is not None and macs is not None
        points[name] = Point(params, macs, top1, top1, top1)
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
        shift = [[network_name(f"shiftresnet{depth}", expansion)] for expansion in EXPANSIONS]
        resnet = [
            [
                network_name(f"resnet{depth}", expansion, reduction)
                for reduction in ("module", "net")
            ]
            for expansion in EXPANSIONS[:-1]
        ]
        choices: dict[Literal["ShiftResNet", "ResNet"], list[list[str]]] = {
            "ShiftResNet": shift,
            "ResNet": [*resnet, [f"resnet{depth}"]],
        }
        for family, candidates in choices.items():
            row = tuple(_better(points, names) for names in candidates)
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
