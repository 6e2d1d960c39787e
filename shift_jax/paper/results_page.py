"""docs/results.md: our accuracies beside the published ones, from the sweep's results files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from shift_jax.config import AUTHORS_EPOCHS
from shift_jax.errors import InputError
from shift_jax.files import output_file
from shift_jax.paper.sections.formatting import SWEEP
from shift_jax.paper.sections.run_tables import run_tables
from shift_jax.paper.sections.shipped import shipped_networks
from shift_jax.paper.sections.short_schedules import short_schedules
from shift_jax.paper.sections.whole_recipe import whole_recipe
from shift_jax.paper.sweep.allocations import NAMED_ALLOCATIONS, read_allocation
from shift_jax.paper.sweep.network_runs import grouped_runs, rows_of_file
from shift_jax.paper.sweep.results_file import Result
from shift_jax.weights.shipped import weights_named

CIFAR100, CIFAR10 = "results/cifar100.csv", "results/cifar10.csv"
"""The default results files."""

# Whose first module is that of the paper's Figures 7 and 8.
_ANALYZED = "shiftresnet20-3.cifar100"

_INTRODUCTION = """\
# Accuracies on CIFAR

Accuracies are test top-1 in percent: after the last epoch and, beside it, of the best epoch; those
of several seeds are their mean ± sample standard deviation. Minutes are the sum over the seeds, in
CPU time on CPUs and in wall time elsewhere.
"""
# They counted wall time on CPUs too.
_OLD_COMMITS = ("7204582", "0bc559f")
_OLD_MINUTES = f"""\
Runs of the commits {" and ".join(_OLD_COMMITS)} count wall time, each on a core of its own.
"""

_RECIPE = f"""\
## The recipe

The recipe is that of the authors' code: {AUTHORS_EPOCHS} epochs in batches of 128; \
SGD with momentum 0.9,
which restarts in each epoch; a learning rate of 0.1, divided by 10 after one half and again after
three quarters of the epochs; weight decay of 5e-4 on all parameters; random crops of 32×32 after
padding by 4, and flips. The sweep adds one row for each run to `results/cifar100.csv` or
`results/cifar10.csv`; `--data_dir` or `--arrays` says where the dataset is:

```sh
{SWEEP} --dataset=cifar100 --models=NETWORK --seeds=0,1,2 --epochs=20
```

`shift-jax results` writes this page from the two files. Trials of other recipes are in
`results/trials.csv` and not on this page.
"""

_FIGURES = """\
![Figure 4: accuracy against parameters](pictures/figure4.png)

![Figure 5: accuracy against multiply-accumulates](pictures/figure5.png)

`shift-jax accuracy-figures` draws Figures 4 and 5.
"""

_SECTION_4 = """\
## Section 4: contributions and correlations

Both figures show the first CSC of `{name}`, which comes with the package:
{source}; {top1:.2f} % test top-1.
The module has 48 channels in the middle; that of the paper's figures has 144.

![Figure 7: contributions of the channels](pictures/figure7.png)

![Figure 8: correlations within shift groups](pictures/figure8.png)

`shift-jax figures --weights={name} --output=docs/pictures` draws them from the
network and 1,000 of CIFAR-100's test images, and writes Section 4.1's redundant pairs to
[`redundant_pairs.csv`](pictures/redundant_pairs.csv).
"""


def results_page(
    cifar100: Sequence[Result],
    cifar10: Sequence[Result] = (),
    weights: Mapping[str, Sequence[float]] = MappingProxyType({}),
) -> str:
    """Returns the page as Markdown, the same for the same rows in any order.

    Rows of one network, schedule and seed are the exception: in a mean the last one counts.

    Args:
      cifar100: rows of runs on CIFAR-100.
      cifar10: rows of runs on CIFAR-10.
      weights: direction weights by name of allocations that are not built in.
    """
    analyzed = weights_named(_ANALYZED)
    assert analyzed.top1 is not None
    groups, groups_10 = (
        [group for group in grouped_runs(results) if group.runs[0].is_controlled]
        for results in (cifar100, cifar10)
    )
    has_old_minutes = any(run.commit in _OLD_COMMITS for run in (*cifar100, *cifar10))
    parts = [
        _INTRODUCTION + _OLD_MINUTES * has_old_minutes,
        short_schedules("CIFAR-100", "cifar100", groups),
        short_schedules("CIFAR-10", "cifar10", groups_10),
        shipped_networks(),
        *whole_recipe(groups, groups_10),
        _FIGURES,
        _SECTION_4.format(name=_ANALYZED, source=analyzed.source, top1=100 * analyzed.top1),
        _RECIPE,
        *run_tables("CIFAR-100", "cifar100", cifar100, weights),
        *run_tables("CIFAR-10", "cifar10", cifar10, weights),
    ]
    return "\n".join(filter(None, parts))


def save_page(path: str | os.PathLike[str], page: str) -> None:
    """Writes the page; if that fails, an existing page stays.

    Raises:
      InputError: a file that cannot be written.
    """
    with output_file(Path(path)) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _weights_beside(path: str | Path, results: Iterable[Result]) -> dict[str, tuple[float, ...]]:
    """The weights of allocations that are not built in, from the files beside the results."""
    names = {run.allocation for run in results} - {"", *NAMED_ALLOCATIONS}
    weights = {}
    for name in sorted(names):
        file = Path(path).parent / f"{name}.json"
        if file.exists():
            found, weights[name] = read_allocation(file)
            if found != name:
                raise InputError(f"{file} has the allocation {found!r}: name the file after it.")
    return weights


def write_page(output: Path, cifar100: Path | None = None, cifar10: Path | None = None) -> None:
    """Writes the page and prints its number of runs.

    Args:
      output: the page.
      cifar100: the sweep's results file; None for `CIFAR100`, which may be absent. NAME.json beside
        it is an allocation that is not built in.
      cifar10: the same for CIFAR-10; None for `CIFAR10`.

    Raises:
      InputError: a file that does not exist, is damaged or cannot be written.
    """
    runs, runs_10 = rows_of_file(cifar100, CIFAR100), rows_of_file(cifar10, CIFAR10)
    weights = _weights_beside(cifar10 or CIFAR10, runs_10)
    weights |= _weights_beside(cifar100 or CIFAR100, runs)
    save_page(output, results_page(runs, runs_10, weights))
    print(f"{output}: {len(runs)} runs on CIFAR-100, {len(runs_10)} on CIFAR-10.")
