"""Evaluates a run's newest or best checkpoint, any one checkpoint, or the weights that come with
the package, over a whole split.

    python eval.py --workdir=runs/quickstart
    python eval.py --workdir=runs/quickstart --which=best --split=train
    python eval.py --checkpoint=runs/quickstart/checkpoints/1200
    python eval.py --weights=shiftresnet20-3.cifar100 --data_dir=DIR
    python eval.py --workdir=runs/faces --split=lfw --data_dir=DIR --pairs_file=pairs.txt

Prints the task's metrics and writes them as JSON, for some tasks with a picture beside it.
"""

import sys

from absl import flags

from shift_jax.training import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "Folder of one checkpoint instead.")
_WEIGHTS = flags.DEFINE_string("weights", None, "Name of shipped weights instead.")
_WHICH = flags.DEFINE_enum("which", "latest", ["latest", "best"], "Which one of --workdir.")
_SPLIT = flags.DEFINE_string("split", None, "Split to evaluate; default: the config's.")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the dataset is; default: the config's.")
_PAIRS_FILE = flags.DEFINE_string("pairs_file", None, "Pairs of faces, for --split=lfw or ytf.")
_SET = flags.DEFINE_multi_string(
    "set", [], "FIELD=VALUE of the config to evaluate with, such as verification.num_pairs=1000."
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "JSON file; default: metrics.json or metrics_SPLIT.json, in the workdir or runs/NAME.",
)

cli.define_process_flags()


def main() -> None:
    from shift_jax.training.evaluation import evaluate_and_report

    evaluate_and_report(
        workdir=_WORKDIR.value,
        checkpoint=_CHECKPOINT.value,
        weights=_WEIGHTS.value,
        which=_WHICH.value,
        split=_SPLIT.value,
        data_dir=_DATA_DIR.value,
        pairs_file=_PAIRS_FILE.value,
        overrides=cli.fields(_SET.value),
        output=_OUTPUT.value,
    )


if __name__ == "__main__":
    sys.exit(cli.run(main))
