"""Trains what a config describes; the same command again resumes.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart
    python train.py --config=configs/cifar.py:cifar100,shiftresnet20,expansion=3 --workdir=runs/x
    python train.py --config=… --workdir=… --config.schedule.learning_rate=0.05

`--config.KEY=VALUE` overrides a field of the config; shift_jax.config explains them.
"""

import sys

from shift_jax.commands import absl_flags

if __name__ == "__main__":
    sys.exit(absl_flags.run("train"))
