"""Evaluates a run, one checkpoint or weights of the package on a whole split.

    python eval.py --workdir=runs/quickstart
    python eval.py --workdir=runs/quickstart --which=best --split=train
    python eval.py --checkpoint=runs/quickstart/checkpoints/1200
    python eval.py --weights=shiftresnet20-3.cifar100 --data_dir=DIR
    python eval.py --workdir=runs/faces --split=lfw --data_dir=DIR --pairs_file=pairs.txt

Prints the task's metrics and writes them as JSON, for some tasks with a picture beside it.
"""

import sys

from shift_jax.commands import absl_flags

if __name__ == "__main__":
    sys.exit(absl_flags.run("eval"))
