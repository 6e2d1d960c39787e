"""Trains the networks of a table of the paper, as many as time allows.

    shift-jax sweep --table=5 --dataset=cifar100 --budget_minutes=60

Goes through Table 1, 2, 4 or 5 in the order of importance; Figures 4 and 5 show Table 5. Each
finished run is a row of --results, and what has a row is never trained again. The same command
continues where it was stopped or killed or ran out of time: from the last saved epoch of the
network that was training, on a CPU at most two minutes back.

A network that cannot be trained does not stop the others; the status is then 2 and not 0. On a GPU
the seeds of a network train at the same time, or one by one where its memory is too small for
all; on a CPU the first seed of every network comes first.

On a CPU under Linux, GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment saves a tenth of the
time. Several such commands at the same time, each on its own core or GPU, train different networks:
taskset -c 0 shift-jax sweep …, taskset -c 1 shift-jax sweep …
"""

import math
from argparse import ArgumentTypeError, Namespace
from pathlib import Path

from shift_jax.commands.line import DIR, FILE, CommandLine, number


def _seeds(text: str) -> tuple[int, ...]:
    try:
        seeds = tuple(map(int, text.split(",")))
    except ValueError:
        seeds = ()
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0 or max(seeds) >= 2**32:
        raise ArgumentTypeError("different integers from 0 to 2**32 - 1, as in 0,1,2")
    return seeds


line = CommandLine("sweep")
line.add("--table", "Table of the paper: 1, 2, 4 or 5.", number(int, 1), default=5)
line.add(
    "--models",
    "Networks to train instead of a table, in this order, such as shiftresnet20-3, "
    "resnet20-module-1, shiftresnet20-3@cross or shiftresnet20-3@alloc.json; @ names an "
    "allocation, see shift-jax allocation.",
    metavar="NAME[,NAME …]",
)
line.add(
    "--dataset",
    "Dataset; digits is for trying the sweep.",
    choices=("digits", "cifar10", "cifar100"),
    default="cifar100",
)
line.add("--data_dir", "TFDS's folder. Default: TFDS's own.", DIR)
line.add(
    "--arrays",
    "The dataset as arrays, from shift-jax pack-arrays, in place of --data_dir.",
    FILE,
)
line.add(
    "--seeds",
    "Seeds to train. Default: 0,1,2 for networks of depth 20 and 0 for the others.",
    _seeds,
    metavar="SEED[,SEED …]",
)
line.add(
    "--epochs",
    "Length of the schedule; fewer epochs keep the recipe's proportions.",
    number(int, 1),
    default=164,
)
line.add(
    "--budget_minutes",
    "Time after which the sweep saves and ends. It does not begin a network that would take longer "
    "than what remains, as far as this device's rows tell.",
    number(float, 0),
    default=math.inf,
    metavar="MINUTES",
)
line.add(
    "--results",
    "CSV file, to which several sweeps may write at the same time. Default: results/DATASET.csv.",
    FILE,
)
line.add(
    "--workdir",
    "Folder for checkpoints; eval takes the folder of a finished run in it. Sweeps that share it "
    "do not train the same network.",
    DIR,
    default=Path("runs/sweep"),
)
line.add("--dry_run", "Only say what would be trained.", bool, default=False)


def main(options: Namespace) -> None:
    from shift_jax.paper.sweep.networks import parse_networks, table_networks
    from shift_jax.paper.sweep.sweep import run_sweep

    names = options.models and options.models.split(",")
    run_sweep(
        options.dataset,
        parse_networks(names) if names else table_networks(options.table),
        seeds=options.seeds,
        epochs=options.epochs,
        budget_minutes=options.budget_minutes,
        results=options.results or Path(f"results/{options.dataset}.csv"),
        workdir=options.workdir,
        arrays=options.arrays,
        data_dir=options.data_dir,
        dry_run=options.dry_run,
    )


if __name__ == "__main__":
    line.run(main)
