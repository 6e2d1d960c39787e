"""Sections on other allocations, other recipes, every run and its command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from shift_jax.config import AUTHORS_EPOCHS
from shift_jax.paper.sections.formatting import (
    NOT_RUN,
    SWEEP,
    aligned_table,
    cost,
    difference,
    section,
    spread,
)
from shift_jax.paper.sweep.allocations import NAMED_ALLOCATIONS
from shift_jax.paper.sweep.network_runs import NetworkRuns, grouped_runs, order
from shift_jax.paper.sweep.results_file import Result

_PAIRED = """\
Networks of the same size, schedule and seeds: the difference of the means ± the sample standard
deviation of the differences seed by seed. "uniform" is the paper's allocation; "even" gives the
channels left over to the first directions and not to the center.
`shift-jax allocation` writes the allocation of a trained network.
"""
_OTHERS = """\
Runs of other recipes than the authors', or with trained offsets. No other table or figure counts
them.
"""
_REPEAT = """\
To repeat a run, add a `--results=` and a `--workdir=` of your own: the sweep does not train again
what has a row in the results.
"""
_EVEN = "even"


def run_tables(
    title: str,
    dataset: str,
    results: Sequence[Result],
    weights: Mapping[str, Sequence[float]],
) -> list[str]:
    """Returns four sections of Markdown, "" for those with nothing to show.

    Args:
      title: the dataset's name in the headings.
      dataset: its name in commands.
      results: rows of its results file.
      weights: direction weights, as far as they are known, of allocations that are not built in.
    """
    groups = grouped_runs(results)
    controlled = [group for group in groups if group.runs[0].is_controlled]
    others = [group for group in groups if not group.runs[0].is_controlled]
    in_order = sorted(
        results,
        key=lambda run: (*order(run.network), -run.epochs, run.recipe, run.shift, run.seed),
    )
    commands = [_command(dataset, group) for group in controlled]
    return [
        _allocations(f"## {title}: other shift allocations", controlled, weights),
        section(
            f"## {title}: other recipes and trained shifts",
            _OTHERS if others else "",
            aligned_table(map(_other_row, others)),
        ),
        section(f"## {title}: every run", aligned_table(map(_run_row, in_order))),
        section(
            f"## {title}: commands",
            "\n".join([_REPEAT, "```sh", *commands, "```"]) if commands else "",
        ),
    ]


def _allocations(
    heading: str, groups: Sequence[NetworkRuns], weights: Mapping[str, Sequence[float]]
) -> str:
    allocated = [group for group in groups if group.allocation]
    names = dict.fromkeys(group.allocation for group in allocated)
    listed = [_weights_line(name, NAMED_ALLOCATIONS | {**weights}) for name in names]
    return section(
        heading,
        _PAIRED if allocated else "",
        "Weights of the directions:" if allocated else "",
        "\n".join(listed),
        aligned_table(row for group in allocated for row in _allocation_rows(group, groups)),
    )


def _weights_line(name: str, known: Mapping[str, Sequence[float] | None]) -> str:
    weights = known.get(name)
    if not weights:
        return f"- {name}: weights unknown"
    size = round(len(weights) ** 0.5)
    rows = [weights[start : start + size] for start in range(0, len(weights), size)]
    return f"- {name}: " + " / ".join(" ".join(f"{w:.4g}" for w in row) for row in rows)


def _allocation_rows(group: NetworkRuns, groups: Sequence[NetworkRuns]) -> list[dict[str, str]]:
    """Compares an allocation with the uniform one and, where it was run, with the even one."""
    network = group.name.partition("@")[0]
    found = {(other.name, other.epochs): other for other in groups}
    even = found.get((f"{network}@{_EVEN}", group.epochs))
    rows = [_comparison(group, found.get((network, group.epochs)), "uniform")]
    if group.allocation != _EVEN and even:
        rows.append(_comparison(group, even, _EVEN))
    return rows


def _comparison(group: NetworkRuns, other: NetworkRuns | None, title: str) -> dict[str, str]:
    """Compares runs over the seeds that both have."""
    common = {*group.seeds} & {*other.seeds} if other else set()
    ours, theirs = (
        NetworkRuns(tuple(run for run in each.runs if run.seed in common))
        for each in (group, other or group)
    )
    row = {
        "Network": group.name.partition("@")[0],
        "Allocation": group.allocation,
        "Baseline": title,
        "Epochs": f"{group.epochs:g}",
        "Seeds": str(len(common) or len(group.runs)),
    }
    for epoch, field in (("last", "last_top1"), ("best", "best_top1")):
        row |= {
            f"Baseline, {epoch}": spread(theirs.values(field)) or NOT_RUN,
            f"Allocated, {epoch}": spread((ours if common else group).values(field)),
            f"Difference, {epoch}": spread(difference(ours, theirs, field), sign="+"),
        }
    return row


def _other_row(group: NetworkRuns) -> dict[str, str]:
    run = group.runs[-1]
    return {
        "Network": group.name,
        "Recipe": run.recipe,
        "Shift": run.shift,
        "Epochs": f"{group.epochs:g}",
        "Params": f"{run.params:,}",
        "Last epoch": spread(group.values("last_top1")),
        "Best epoch": spread(group.values("best_top1")),
        **cost(group),
    }


def _run_row(run: Result) -> dict[str, str]:
    return {
        "Network": run.network,
        "Recipe": run.recipe,
        "Shift": run.shift,
        "Seed": str(run.seed),
        "Epochs": f"{run.epochs:g}",
        "MACs": f"{run.macs:,}",
        "Last epoch": f"{run.last_top1:.2f}",
        "Best epoch": f"{run.best_top1:.2f}",
        "Minutes": f"{run.minutes:,.1f}",
        "Device": run.device,
        "Commit": run.commit,
    }


def _command(dataset: str, group: NetworkRuns) -> str:
    name, seeds = group.name, ",".join(map(str, group.seeds))
    if group.allocation not in ("", *NAMED_ALLOCATIONS):
        name = name.replace("@", "@results/") + ".json"
    epochs = "" if group.epochs == AUTHORS_EPOCHS else f" --epochs={group.epochs:g}"
    return f"{SWEEP} --dataset={dataset} --models={name} --seeds={seeds}{epochs}"
