"""Tables of what sweeps trained: other schedules, other allocations, every run and its command."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from shift_jax.markdown import markdown_table
from shift_jax.paper.sweep.allocations import NAMED_ALLOCATIONS
from shift_jax.paper.sweep.network_runs import NetworkRuns, grouped_runs, name_of, order
from shift_jax.paper.sweep.networks import EPOCHS
from shift_jax.paper.sweep.results_file import Result
from shift_jax.paper.tables.published import families

SWEEP = "python -m shift_jax.paper.sweep.sweep --table=5"
NOT_RUN = "not run"
_LEFT_ALIGNED = ("Network", "Allocation", "Compared with", "Device", "Commit")
_PAIRED = """\
Networks of the same size, schedule and seeds: the difference of the means ± the sample standard
deviation of the differences seed by seed. "uniform" is the paper's allocation; "even" leaves no
channels over for the centre. `python -m shift_jax.paper.figures.allocation` writes those of a
trained network.
"""
_REPEAT = """\
To repeat a run add `--results=` and `--workdir=` of your own, because what has a row in the results
is not trained again.
"""
_EVEN = "even"


def run_tables(
    title: str,
    dataset: str,
    results: Sequence[Result],
    weights: Mapping[str, Sequence[float]],
) -> list[str]:
    """Returns four sections of Markdown.

    Args:
      title: the dataset's name in the headings.
      dataset: its name in commands.
      results: rows of its results file.
      weights: direction weights of allocations that are not named ones, as far as they are known.
    """
    cells = grouped_runs(results)
    published = {
        name: getattr(known, dataset)
        for family in families()
        for name, known in family.networks.items()
    }
    in_order = sorted(results, key=lambda run: (*order(name_of(run)), -run.epochs, run.seed))
    others = sorted((c for c in cells if c.epochs != EPOCHS), key=lambda c: -c.epochs)
    allocated = [cell for cell in cells if cell.runs[0].allocation]
    rows = [row for cell in allocated for row in _allocation_rows(cell, cells)]
    names = dict.fromkeys(cell.runs[0].allocation for cell in allocated)
    listed = "\n".join(_weights_line(name, NAMED_ALLOCATIONS | {**weights}) for name in names)
    sections = {
        f"schedules of other lengths than {EPOCHS} epochs": aligned_table(
            _schedule_row(cell, published) for cell in others
        ),
        "shifts allocated otherwise than uniformly": allocated
        and f"{_PAIRED}\nWeights of the directions:\n\n{listed}\n\n{aligned_table(rows)}",
        "every run": aligned_table(map(_run_row, in_order)),
        "commands": cells
        and "\n".join([_REPEAT, "```sh", *(_command(dataset, cell) for cell in cells), "```"]),
    }
    return [f"## {title}: {name}\n\n{text or 'None yet.'}\n" for name, text in sections.items()]


def _schedule_row(cell: NetworkRuns, published: Mapping[str, float | None]) -> dict[str, str]:
    paper = published.get(cell.name)
    return {
        "Network": cell.name,
        f"Paper, {EPOCHS} epochs": "–" if paper is None else f"{paper:.2f}",
        "Epochs": f"{cell.epochs:g}",
        "Params": f"{cell.runs[-1].params:,}",
        "MACs": f"{cell.runs[-1].macs:,}",
        "Last epoch": spread(cell.values("last_top1")),
        "Best epoch": spread(cell.values("best_top1")),
        **cost(cell),
    }


def _weights_line(name: str, known: Mapping[str, Sequence[float] | None]) -> str:
    weights = known.get(name)
    if not weights:
        return f"- {name}: weights unknown"
    size = round(len(weights) ** 0.5)
    rows = [weights[start : start + size] for start in range(0, len(weights), size)]
    return f"- {name}: " + " / ".join(" ".join(f"{w:.4g}" for w in row) for row in rows)


def _allocation_rows(cell: NetworkRuns, cells: Sequence[NetworkRuns]) -> list[dict[str, str]]:
    """Compares an allocation with the uniform one and, where it was run, with the even one."""
    network, _, allocation = cell.name.partition("@")
    rows = [_comparison(cell, cells, network, "uniform")]
    even = f"{network}@{_EVEN}"
    if allocation != _EVEN and any((c.name, c.epochs) == (even, cell.epochs) for c in cells):
        rows.append(_comparison(cell, cells, even, _EVEN))
    return rows


def _comparison(
    cell: NetworkRuns, cells: Sequence[NetworkRuns], baseline: str, title: str
) -> dict[str, str]:
    """Compares with the cell of another name over the seeds that both have."""
    network, _, allocation = cell.name.partition("@")
    others = {
        run.seed: run
        for other in cells
        if (other.name, other.epochs) == (baseline, cell.epochs)
        for run in other.runs
    }
    pairs = [(run, others[run.seed]) for run in cell.runs if run.seed in others]
    row = {
        "Network": network,
        "Allocation": allocation,
        "Compared with": title,
        "Epochs": f"{cell.epochs:g}",
        "Seeds": str(len(pairs) or len(cell.runs)),
    }
    for epoch, field in (("last", "last_top1"), ("best", "best_top1")):
        values = [(getattr(run, field), getattr(other, field)) for run, other in pairs]
        ours = [ours for ours, _ in values] or cell.values(field)
        row |= {
            f"That, {epoch}": spread([other for _, other in values]) or NOT_RUN,
            f"Allocated, {epoch}": spread(ours),
            f"Difference, {epoch}": spread([ours - other for ours, other in values], sign="+"),
        }
    return row


def _run_row(run: Result) -> dict[str, str]:
    return {
        "Network": name_of(run),
        "Seed": str(run.seed),
        "Epochs": f"{run.epochs:g}",
        "Last epoch": f"{run.last_top1:.2f}",
        "Best epoch": f"{run.best_top1:.2f}",
        "Minutes": f"{run.minutes:,.1f}",
        "Device": run.device,
        "Commit": run.commit,
    }


def _command(dataset: str, cell: NetworkRuns) -> str:
    name, seeds = cell.name, ",".join(map(str, cell.seeds))
    if cell.runs[0].allocation not in ("", *NAMED_ALLOCATIONS):
        name = name.replace("@", "@results/") + ".json"
    epochs = "" if cell.epochs == EPOCHS else f" --epochs={cell.epochs:g}"
    return f"{SWEEP} --dataset={dataset} --models={name} --seeds={seeds}{epochs}"


def cost(cell: NetworkRuns | None) -> dict[str, str]:
    """Returns by column what the runs of a cell took; of none, empty cells."""
    if cell is None:
        return dict.fromkeys(("Seeds", "Minutes", "Device"), "")
    return {
        "Seeds": str(len(cell.runs)),
        "Minutes": f"{sum(cell.values('minutes')):,.1f}",
        "Device": "; ".join(sorted({run.device for run in cell.runs})),
    }


def spread(values: Sequence[float], sign: str = "") -> str:
    """Returns mean ± sample standard deviation, the one value alone, or "" for none.

    Args:
      values: percentages.
      sign: "+" for a sign before positive means too.
    """
    if not values:
        return ""
    mean = f"{statistics.mean(values):{sign}.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def aligned_table(rows: Iterable[Mapping[str, str]]) -> str:
    """Returns rows as Markdown, with accuracies and other numbers on the right."""
    return markdown_table(rows, left=_LEFT_ALIGNED)
