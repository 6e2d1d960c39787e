"""Tells what is in a photo, or in every photo of a folder: classes and their probabilities.

    shift-jax predict photo.jpg --weights=shiftresnet20-3.cifar100
    shift-jax predict photo.jpg --model=runs/finetuned --top=3
    shift-jax predict photos/ --model=runs/finetuned --output=classes.json --sheet=sheet.jpg

A class has a label, its name in the dataset, and a readable name; for ImageNet these are synsets
such as n01440764 and names such as tench. JSON is a list of {"file": …, "top": [{"label": …,
"name": …, "probability": …}]}.

Photos are turned upright and then prepared as for the evaluation of the network. Those that cannot
be read, .heic and cameras' raw files among them, are left out and listed at the end, with exit
status 2.
"""

from __future__ import annotations

import contextlib
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from shift_jax.commands.line import DIR, FILE, PATH, CommandLine, number
from shift_jax.errors import InputError

_FORMATS = {".csv": "csv", ".json": "json"}

line = CommandLine("predict", "Name a photo", "photo.jpg --weights=shiftresnet20-3.cifar100")
line.add("photos", "Photos, or folders of photos.", PATH, nargs="+", metavar="photo")
line.add("--weights", "Name of shipped weights.", metavar="NAME")
line.add("--model", "Folder of a run or of one checkpoint instead.", DIR)
line.add(
    "--which", "Which checkpoint of a run in --model.", choices=("latest", "best"), default="latest"
)
line.add("--top", "Number of classes to tell.", number(int, least=1), default=5, metavar="NUMBER")
line.add(
    "--labels",
    "Names of the classes instead of those that the network knows: a text file with a label, or a "
    "label, a tab, and a readable name, on each line.",
    FILE,
)
line.add("--output", "File to write. Default: the terminal.", FILE)
line.add(
    "--format",
    "Format of the output. Default: that of the ending of --output, or text.",
    choices=("text", "csv", "json"),
)
line.add("--sheet", "Photo to write with all photos and the first class of each.", FILE)


def main(options: Namespace) -> None:
    from shift_jax.data.class_names import read_classes
    from shift_jax.data.decode.photo_files import check_photo_path
    from shift_jax.tasks.prediction import LARGEST_SHEET, WRITERS, Predictor, photos_to_classify
    from shift_jax.training.inference import load_classifier

    photos, others = photos_to_classify(options.photos)
    _check(options, photos)
    if options.sheet:
        check_photo_path(options.sheet)
        if len(photos) > LARGEST_SHEET:
            raise InputError(
                f"--sheet={options.sheet} would show {len(photos):,} photos, at most "
                f"{LARGEST_SHEET} fit: name fewer photos, or leave --sheet out."
            )
    classes = read_classes(options.labels) if options.labels else None
    classifier = load_classifier(options.weights, options.model, options.which, classes)
    predictor = Predictor(classifier, options.top, with_pictures=bool(options.sheet))
    ending = options.output.suffix.lower() if options.output else ""
    write = WRITERS[options.format or _FORMATS.get(ending, "text")]
    shows_bar = sys.stderr.isatty() and not (options.output is None and sys.stdout.isatty())
    with _opened(options.output) as stream:
        write(stream, predictor.predict(photos, progress=shows_bar))
    if options.sheet and predictor.pictures:
        predictor.draw(options.sheet)
    left_out = predictor.refused
    if options.output:
        print(f"{len(photos) - len(left_out):,} photos; written to {options.output}")
    for sentence in left_out:
        print(f"left out: {sentence}", file=sys.stderr)
    if others:
        endings = ", ".join(sorted({Path(name).suffix.lower() for name in others}))
        print(
            f"left out: {len(others)} photos of kinds that are not read ({endings}): convert them "
            "to .jpg or .png.",
            file=sys.stderr,
        )
    if left_out or others:
        raise InputError(
            f"{len(left_out) + len(others)} of the {len(photos) + len(others)} photos were left "
            "out, for the reasons above: fix or remove them."
        )


def _check(options: Namespace, photos: list[str]) -> None:
    """Raises InputError for flags that do not belong together, and for outputs that are photos."""
    if (options.weights is None) == (options.model is None):
        raise InputError("Give either --weights=NAME or --model=DIR.")
    for flag in ("output", "sheet"):
        target = getattr(options, flag)
        if target and target.exists() and any(target.samefile(photo) for photo in photos):
            raise InputError(f"--{flag}={target} is one of the photos: name another file.")


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Yields the stream to write to: that of the terminal, or of a file that is replaced whole."""
    from shift_jax.files import output_file

    if output is None:
        yield sys.stdout
        return
    # Names of files that are no UTF-8 keep their bytes.
    with (
        output_file(output, "name another --output") as temporary,
        temporary.open("w", encoding="utf-8", errors="surrogateescape") as stream,
    ):
        yield stream


if __name__ == "__main__":
    line.run(main)
