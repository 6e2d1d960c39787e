"""docs/results.md: the published accuracies of Table 5 and ours, from the sweep's results files.

    python -m shift_jax.paper.results_page --output=docs/results.md

reads the runs on CIFAR-100 and CIFAR-10, --results=results/cifar100.csv and
--cifar10=results/cifar10.csv, and beside them the allocations that are not named ones,
results/NAME.json.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from absl import flags

from shift_jax.errors import InputError
from shift_jax.files import output_file
from shift_jax.paper.run_tables import NOT_RUN, SWEEP, aligned_table, cost, run_tables, spread
from shift_jax.paper.sweep.allocations import NAMED_ALLOCATIONS, read_allocation
from shift_jax.paper.sweep.network_runs import NetworkRuns, grouped_runs, rows_of_flag
from shift_jax.paper.sweep.networks import EPOCHS
from shift_jax.paper.sweep.results_file import Result
from shift_jax.paper.tables.published import Published, families
from shift_jax.training import cli
from shift_jax.weights.shipped import weights_named

_LOW_POINTS = 1

_INTRODUCTION = f"""\
# Accuracies on CIFAR

`python -m shift_jax.paper.results_page` writes this page from `results/cifar100.csv` and
`results/cifar10.csv`, to which the sweep adds one row for each run:

```sh
{SWEEP} --dataset=cifar100 --models=NETWORK --seeds=0,1,2
```

`--data_dir` or `--arrays` says where the dataset is. The recipe is that of the authors' code:
{EPOCHS} epochs in batches of 128; SGD with momentum 0.9, which starts anew in each epoch; learning
rate 0.1, a tenth of it from one half and a hundredth from three quarters of the epochs on; weight
decay 5e-4 on all parameters; random crops of 32×32 after padding by 4, and flips.

## Table 5

- Accuracies are test top-1 in percent, on CIFAR-100 where nothing else is said.
- "Paper" is the paper's Table 5, "Re-run" the authors' own, later one, from their repository. Both
  are those of the best test epoch.
- Ours are those of the last epoch and, beside it, of the best one; with several seeds their mean ±
  sample standard deviation. Only runs of all {EPOCHS} epochs count here.
- (low): more than {_LOW_POINTS} point below every published accuracy of the cell; of networks that
  are reduced module-wise below the re-run alone, where there is one.
- Minutes are those of all seeds together: of CPU time on CPUs, of wall time elsewhere.
- Table 1 is shiftresnet56-3 and resnet56; Table 2 shiftresnet110-1, resnet110-net-1 and
  resnet110-module-1; Table 4 shiftresnet20-6, 56-6 and 110-6 and resnet20, 56 and 110.
"""

_MODULE_WISE = """\
The paper's networks of this table have 6 to 79 % more parameters (resnet20-module-1: 41,796 instead
of 30,308): the authors' first code gave every reduced block a projection shortcut, the likely cause
of the 40 % at depth 110. In the re-run and in ours it has none where the shape does not change.
"""

# Whose first module is that of the paper's Figures 7 and 8.
_ANALYSED = "shiftresnet20-9.cifar100"
_FIGURES = """\
![Figure 4: accuracy against parameters](pictures/figure4.png)

![Figure 5: accuracy against multiply-accumulates](pictures/figure5.png)

`python -m shift_jax.paper.figures.accuracy` draws Figures 4 and 5.
"""


_SECTION_4 = """\
## Section 4: contributions and correlations

Of the first CSC of `{name}`, which comes with the package:
{source}; {top1:.2f} % test top-1.

![Figure 7: contributions of the channels](pictures/figure7.png)

![Figure 8: correlations within shift groups](pictures/figure8.png)

`python -m shift_jax.paper.figures.section_4 --weights={name} --output=docs/pictures`
draws both from the network and 1,000 of CIFAR-100's test images, and writes Section 4.1's redundant
pairs to [`redundant_pairs.csv`](pictures/redundant_pairs.csv).
"""


def results_page(
    cifar100: Sequence[Result],
    cifar10: Sequence[Result] = (),
    weights: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> str:
    """Returns the page as Markdown; of the same rows in any order it is the same.

    Rows of one network, schedule and seed are the exception: in a mean the last one counts.

    Args:
      cifar100: rows of runs on CIFAR-100.
      cifar10: rows of runs on CIFAR-10.
      weights: direction weights by name of allocations that are not named ones.
    """
    analysed = weights_named(_ANALYSED)
    section_4 = _SECTION_4.format(name=_ANALYSED, source=analysed.source, top1=100 * analysed.top1)
    parts = [_INTRODUCTION, *_table_5(cifar100, cifar10), _FIGURES, section_4]
    parts += run_tables("CIFAR-100", "cifar100", cifar100, weights)
    if cifar10:
        parts += run_tables("CIFAR-10", "cifar10", cifar10, weights)
    return "\n".join(parts)


def _table_5(cifar100: Sequence[Result], cifar10: Sequence[Result]) -> list[str]:
    ours, ours_10 = _in_full(cifar100), _in_full(cifar10)
    tables = [(family.title, family.networks) for family in families()]
    known = {name: cell for _, cells in tables for name, cell in cells.items()}
    others = sorted((ours.keys() | ours_10.keys()) - known.keys())
    tables.append(("Other networks", dict.fromkeys(others, Published())))
    printed = {name for name, cell in known.items() if cell.cifar100 is not None}
    printed_10 = {name for name, cell in known.items() if cell.cifar10 is not None}
    sections = [
        f"Trained so far: {len(printed & ours.keys())} of the table's {len(printed)} cells on "
        f"CIFAR-100 and {len(printed_10 & ours_10.keys())} of {len(printed_10)} on CIFAR-10.\n"
    ]
    for title, cells in tables:
        rows = [_row(name, cells[name], ours.get(name), ours_10.get(name)) for name in cells]
        if rows:
            sections.append(f"### {title}\n\n{aligned_table(rows)}\n")
        if any("-module-" in name and cells[name].cifar100 for name in cells):
            sections.append(_MODULE_WISE)
    return sections


def _in_full(results: Sequence[Result]) -> dict[str, NetworkRuns]:
    """Returns by name what was trained as Table 5 was."""
    return {
        cell.name: cell
        for cell in grouped_runs(results)
        if cell.epochs == EPOCHS and not cell.runs[0].allocation
    }


def _row(
    name: str, published: Published, cell: NetworkRuns | None, cell_10: NetworkRuns | None
) -> dict[str, str]:
    known, known_10 = (published.cifar100, published.rerun), (published.cifar10,)
    if "-module-" in name and published.rerun is not None:
        known = (published.rerun,)  # The paper's number is that of the projection shortcuts.
    return {
        "Network": name,
        "Paper": _printed(published.cifar100),
        "Re-run": _printed(published.rerun),
        "Last epoch": _accuracy(cell, "last_top1", known),
        "Best epoch": _accuracy(cell, "best_top1", known),
        **cost(cell),
        "CIFAR-10: paper": _printed(published.cifar10),
        "CIFAR-10: last": _accuracy(cell_10, "last_top1", known_10),
        "CIFAR-10: best": _accuracy(cell_10, "best_top1", known_10),
    }


def _printed(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _accuracy(cell: NetworkRuns | None, field: str, published: Iterable[float | None]) -> str:
    if cell is None:
        return NOT_RUN
    return spread(cell.values(field)) + _low(cell.mean(field), published)


def _low(mean: float, published: Iterable[float | None]) -> str:
    known = [value for value in published if value is not None]
    # Rounded: in binary 64.51 - 63.51 is more than 1.
    return " (low)" if known and round(min(known) - mean, 6) > _LOW_POINTS else ""


def save_page(path: str | os.PathLike[str], page: str) -> None:
    """Writes the page, replacing the old one at once, or keeping it where that fails.

    Raises:
      InputError: a file that cannot be written.
    """
    with output_file(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _weights_beside(path: str, results: Iterable[Result]) -> dict[str, tuple[float, ...]]:
    """The allocations of rows that are not named ones, from the files beside the rows' file."""
    names = {run.allocation for run in results} - {"", *NAMED_ALLOCATIONS}
    weights = {}
    for name in sorted(names):
        file = Path(path).parent / f"{name}.json"
        if file.exists():
            found, weights[name] = read_allocation(file)
            if found != name:
                raise InputError(f"{file} has the allocation {found!r}: name the file after it.")
    return weights


def main() -> None:
    """Reads the flags and writes the page."""
    cifar100, cifar10 = rows_of_flag(_RESULTS), rows_of_flag(_CIFAR10)
    weights = _weights_beside(_CIFAR10.value, cifar10) | _weights_beside(_RESULTS.value, cifar100)
    save_page(_OUTPUT.value, results_page(cifar100, cifar10, weights))
    print(f"{_OUTPUT.value}: {len(cifar100)} runs on CIFAR-100, {len(cifar10)} on CIFAR-10.")


if __name__ == "__main__":
    _RESULTS = flags.DEFINE_string("results", "results/cifar100.csv", "Runs on CIFAR-100.")
    _CIFAR10 = flags.DEFINE_string("cifar10", "results/cifar10.csv", "Runs on CIFAR-10.")
    _OUTPUT = flags.DEFINE_string("output", "docs/results.md", "The page to write.")
    sys.exit(cli.run(main))
