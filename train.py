"""Trains what a config describes; the same command again resumes.

    python train.py --config=configs/quickstart.py --workdir=runs/quickstart
    python train.py --config=configs/cifar.py:cifar100,shiftresnet20,expansion=3 --workdir=runs/x
    python train.py --config=… --workdir=… --config.schedule.learning_rate=0.05

`--config.KEY=VALUE` overrides a field of the config; configs/common.py explains them.
"""

import sys

from absl import flags
from ml_collections import config_flags

from shift_jax.training import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "Config file, perhaps with :options.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; one that holds a run resumes.")
flags.mark_flags_as_required(["config", "workdir"])

cli.define_process_flags()


def main() -> None:
    from shift_jax.training.loop import train

    train(_CONFIG.value, _WORKDIR.value)


if __name__ == "__main__":
    sys.exit(cli.run(main))
