"""Evaluates a run, a checkpoint, or shipped weights on a whole split.

    shift-jax eval --workdir=runs/quickstart
    shift-jax eval --workdir=runs/quickstart --which=best --split=train
    shift-jax eval --checkpoint=runs/quickstart/checkpoints/1200
    shift-jax eval --weights=shiftresnet20-3.cifar100 --data_dir=DIR
    shift-jax eval --workdir=runs/faces --split=lfw --data_dir=DIR --pairs_file=pairs.txt

Prints the task's metrics and writes them as JSON, for some tasks with a picture. In a
checkout `python eval.py` is the same, with absl's flags.
"""

from argparse import ArgumentTypeError, Namespace

from shift_jax.commands.line import DIR, FILE, CommandLine


def _field(text: str) -> tuple[str, object]:
    from shift_jax.config import literal

    key, equals, value = text.partition("=")
    if not equals:
        raise ArgumentTypeError("FIELD=VALUE")
    return key, literal(value)


line = CommandLine("eval")
line.add("--workdir", "Folder of a run.", DIR)
line.add("--checkpoint", "Folder of one checkpoint instead.", DIR)
line.add("--weights", "Name of shipped weights instead.", metavar="NAME")
line.add("--which", "Which checkpoint of --workdir.", choices=("latest", "best"), default="latest")
line.add("--split", "Split to evaluate. Default: the config's.")
line.add("--data_dir", "Folder of the dataset. Default: the config's.", DIR)
line.add(
    "--allow_subset",
    "Evaluate only the examples of classes that the network learned, if the split has others.",
    bool,
    default=False,
)
line.add("--pairs_file", "Pairs of faces, for --split=lfw or ytf.", FILE)
line.add(
    "--set",
    "Value of a config field for this evaluation, such as verification.num_pairs=1000. May be "
    "given more than once.",
    _field,
    action="append",
    default=[],
    metavar="FIELD=VALUE",
)
line.add(
    "--output",
    "JSON file. Default: metrics.json or metrics_SPLIT.json in the workdir or runs/NAME.",
    FILE,
)
line.add_process_flags()


def main(options: Namespace) -> None:
    from shift_jax.training.evaluation import evaluate_and_report

    evaluate_and_report(
        workdir=options.workdir,
        checkpoint=options.checkpoint,
        weights=options.weights,
        which=options.which,
        split=options.split,
        data_dir=options.data_dir,
        pairs_file=options.pairs_file,
        overrides=dict(options.set),
        output=options.output,
        allow_subset=options.allow_subset,
    )


if __name__ == "__main__":
    line.run(main)
