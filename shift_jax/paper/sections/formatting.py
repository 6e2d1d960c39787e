"""How the page of results shows accuracies, costs and tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from shift_jax.markdown import markdown_table
from shift_jax.paper.sweep.network_runs import NetworkRuns

SWEEP = "shift-jax sweep"
NOT_RUN = "not run"

_LEFT_ALIGNED = ("Network", "Weights", "Allocation", "Baseline", "Recipe", "Shift")
_LEFT_ALIGNED += ("Device", "Commit", "Source", "Evaluated on")


def section(heading: str, *paragraphs: str) -> str:
    """Returns a section of Markdown; "" if every paragraph is empty."""
    text = "\n\n".join(paragraph.strip("\n") for paragraph in paragraphs if paragraph)
    return f"{heading}\n\n{text}\n" if text else ""


def aligned_table(rows: Iterable[Mapping[str, str]]) -> str:
    """Returns rows as Markdown, with accuracies and other numbers on the right; "" without rows."""
    return markdown_table(rows, left=_LEFT_ALIGNED)


def cost(group: NetworkRuns | None) -> dict[str, str]:
    """Returns by column what runs took; empty cells for None."""
    if group is None:
        return dict.fromkeys(("Seeds", "Minutes", "Device"), "")
    return {
        "Seeds": str(len(group.runs)),
        "Minutes": f"{sum(group.values('minutes')):,.1f}",
        "Device": "; ".join(sorted({run.device for run in group.runs})),
    }


def spread(values: Sequence[float], sign: str = "") -> str:
    """Returns mean ± sample standard deviation, a single value alone, or "" for no value.

    Args:
      values: percentages.
      sign: "+" for a sign before positive means too.
    """
    if not values:
        return ""
    mean = f"{statistics.mean(values):{sign}.2f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.2f}"


def difference(ours: NetworkRuns, others: NetworkRuns, field: str) -> list[float]:
    """Returns ours minus theirs, for each seed that both have.

    Args:
      ours, others: runs of two networks.
      field: of `Result`, such as "last_top1".
    """
    theirs = {run.seed: getattr(run, field) for run in others.runs}
    return [getattr(run, field) - theirs[run.seed] for run in ours.runs if run.seed in theirs]


def printed(value: float | None) -> str:
    """Returns a published accuracy, "–" where nothing was published."""
    return "–" if value is None else f"{value:.2f}"
