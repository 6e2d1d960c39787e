"""Trains the network that a config describes; the same command again resumes.

    shift-jax train --config=configs/quickstart.py --workdir=runs/quickstart
    shift-jax train --config=configs/cifar.py:cifar100,shiftresnet20,expansion=3 --workdir=runs/x
    shift-jax train --config=FILE --workdir=DIR --config.schedule.learning_rate=0.05

--config.FIELD=VALUE overrides a field of the config; shift_jax.config explains them. In a
checkout `python train.py` is the same, with absl's flags.
"""

from argparse import Namespace

from shift_jax.commands.line import DIR, CommandLine

line = CommandLine(
    "train",
    "Name a config file and a folder",
    "--config=configs/quickstart.py --workdir=runs/quickstart",
    takes="config",
)
line.add("--workdir", "Folder of the run; one that holds a run resumes.", DIR, required=True)
line.add(
    "--allow_changed_data",
    "Resume although the training data, of the same classes, have become more.",
    bool,
    default=False,
)
line.add_process_flags()


def main(options: Namespace) -> None:
    from shift_jax.config import from_dict
    from shift_jax.training.train import train

    train(
        from_dict(options.config.to_dict()),
        options.workdir,
        allow_changed_data=options.allow_changed_data,
    )


if __name__ == "__main__":
    line.run(main)
