"""Trains the networks of a table of the paper, as many as time allows.

    python -m shift_jax.paper.sweep.sweep --table=5 --dataset=cifar100 --budget_minutes=60

goes through Table 1, 2, 4 or 5 in the order of importance; Figures 4 and 5 show Table 5. Each
finished run is a row of --results, and what has a row is never trained again. The same command goes
on where it was stopped or killed or came to the end of its time: from the last saved epoch of the
network begun, on a CPU from its last two minutes.

--models=shiftresnet20-3,resnet20-module-1,shiftresnet20-3@cross,shiftresnet20-3@alloc.json: these
    in place of a table, in this order; "@" is an allocation, see
    shift_jax.paper.figures.allocation.
--dataset=cifar100: or cifar10, or digits to try it.
--data_dir=DIR: TFDS's folder; or --arrays=cifar100.npz, see shift_jax.training.on_device.arrays.
--seeds=0,1,2: default: three for networks of depth 20, one for others. On a GPU the seeds of a
    network train at the same time; on a CPU all networks come with their first seed first.
--epochs=164: fewer keep the recipe's proportions.
--budget_minutes=60: after which it saves and ends. A network that would take longer than what is
    left of it, as far as the rows of this device tell, is not begun. Default: no end.
--results=results/cifar100.csv: several sweeps may write to it at the same time.
--workdir=runs/sweep: what is saved; a finished run's folder in it is one that eval.py takes. Sweeps
    that share it do not train the same network.
--dry_run=true: only tells what it would train.

A network that cannot be trained does not stop the others; the status is 2 then and not 0. On a GPU
the seeds of a network train one by one where its memory does not suffice for all.

On a CPU under Linux GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment saves a tenth of the
time. Of several such commands at the same time, on a core or a GPU each, every one trains what no
other does: taskset -c 0 python -m …, taskset -c 1 python -m …
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from shift_jax.errors import InputError, check_choice
from shift_jax.models.arguments import split_options
from shift_jax.paper.sweep.lines import say
from shift_jax.paper.sweep.networks import EPOCHS, default_seeds, parse_networks, table_networks
from shift_jax.paper.sweep.runner import Sweep
from shift_jax.training.on_device.arrays import DATASETS, load_arrays

_OPTIONS = {
    "table": "5",
    "models": None,
    "dataset": "cifar100",
    "data_dir": None,
    "arrays": None,
    "seeds": None,
    "epochs": str(EPOCHS),
    "budget_minutes": None,
    "results": None,
    "workdir": "runs/sweep",
    "dry_run": "false",
}


def main(arguments: Sequence[str]) -> None:
    """Runs the sweep that the command line describes."""
    words, options = split_options(arguments, _OPTIONS, __doc__)
    if words:
        raise InputError(f"{words[0]!r} is no flag: flags begin with --, as in --table=5.")
    for name, value in options.items():
        if value == "":  # As of a shell's variable that is not set.
            raise InputError(f"--{name}= has no value: give it one, or leave it out.")
    dataset = options["dataset"]
    check_choice("dataset", dataset, DATASETS)
    check_choice("dry_run", options["dry_run"], ("true", "false"))
    if options["models"]:
        networks = parse_networks(options["models"].split(","))
    else:
        networks = table_networks(_number(options, "table", int))
    seeds = options["seeds"] and _seeds(options["seeds"])
    budget = _number(options, "budget_minutes", float) if options["budget_minutes"] else math.inf
    deadline = time.monotonic() + 60 * budget
    sweep = Sweep(
        dataset,
        {network: seeds or default_seeds(network) for network in networks},
        _number(options, "epochs", int),
        Path(options["results"] or f"results/{dataset}.csv"),
        Path(options["workdir"]),
    )
    sweep.check()
    left = sweep.left()
    if left and options["dry_run"] == "false":
        if jax.config.jax_compilation_cache_dir is None:
            # Other seeds and later starts compile the same.
            jax.config.update("jax_compilation_cache_dir", str(sweep.workdir / "compiled"))
        began = time.perf_counter()
        arrays = load_arrays(dataset, path=options["arrays"], data_dir=options["data_dir"])
        say(
            f"{dataset}: {len(arrays.train_labels):,} training and {len(arrays.test_labels):,} "
            f"test images read in {time.perf_counter() - began:.0f} s."
        )
        left = sweep.run(arrays, deadline)
    say(f"{len(left)} left to train:" if left else f"All is trained: see {sweep.results}.")
    for job in left:
        say(f"  {sweep.describe(job)}")
    if sweep.failed:
        raise InputError(
            f"{len(sweep.failed)} could not be trained: look above for the reason of each."
        )


def _number(options: Mapping[str, Any], name: str, kind: type) -> float:
    try:
        number = kind(options[name])
    except ValueError:
        number = 0
    if not 0 < number < math.inf:
        example = _OPTIONS[name] or "60"
        raise InputError(
            f"--{name}={options[name]} is no number above 0: expected, say, --{name}={example}."
        )
    return number


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(map(int, text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**32:
        raise InputError(
            f"--seeds={text}: expected different integers from 0 to 2**32 - 1, as --seeds=0,1,2."
        )
    return seeds


if __name__ == "__main__":
    from functools import partial

    from shift_jax.training import cli

    sys.exit(cli.run(partial(main, sys.argv[1:]), argv=sys.argv[:1]))
