"""Paints a photo, or every photo in a folder, in the style that a network has learned.

    python -m shift_jax.stylize photo.jpg --style=mosaic --output=painted.jpg
    python -m shift_jax.stylize photo.jpg --model=runs/mosaic --output=painted.png
    python -m shift_jax.stylize photo.jpg --style=mosaic,candy --output=sheet.jpg
    python -m shift_jax.stylize frames/ --style=mosaic --output=painted_frames/

--style=NAME is a style that comes with the package; --style=? lists them. --model=DIR is the folder
of a run, whose newest checkpoint is taken, or of one checkpoint. Of several styles (--style=a,b, or
--model more than once), a photo becomes a contact sheet, and a folder a folder for each style.

A folder's images, those in folders below it too, keep their names; the frames of a video can be
such a folder. Those that cannot be read, .heic and cameras' raw files among them, are left out and
told of at the end, with exit status 2.

--max_size=2000: scale down first, so that the longer side has at most so many pixels.
--preserve_color=true: keep the photo's colours (Cb and Cr of YCbCr), take the lightness (Y) only.
--tile_size=1000: take a photo whole where no side is longer, and in tiles of that size else. 0, the
default, is tiles of 256 for photos of more than 65,536 pixels on a CPU, and of more than a million
elsewhere. The picture is the same, but for rounding.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shift_jax.errors import InputError, check_choice
from shift_jax.painting import Painter, check_folder

if TYPE_CHECKING:
    from shift_jax.models.stylizer import Stylizer

_OPTIONS = {
    "model": None,
    "style": None,
    "output": None,
    "max_size": "0",
    "preserve_color": "false",
    "tile_size": "0",
}


def load_run(folder: str | Path, tile_size: int = 0) -> Stylizer:
    """Returns the network of a run's newest checkpoint, or of one checkpoint.

    Raises:
      InputError: no such run or checkpoint, a damaged one, or one of another network.
    """
    from shift_jax.models import create_model
    from shift_jax.models.style import StyleTransformer
    from shift_jax.models.stylizer import Stylizer
    from shift_jax.training.runs.checkpoints import find_checkpoint, restore_variables
    from shift_jax.training.runs.workdir import read_config

    path = Path(folder)
    if not os.path.isdir(path):
        raise InputError(f"There is no folder {folder}: name that of a run, or of a checkpoint.")
    if not os.path.isdir(path / "manifest"):
        read_config(path)  # Says of a folder that is no run's that it is none.
        path = find_checkpoint(path / "checkpoints", "latest", best_metric="")
    variables, config = restore_variables(path)
    arguments = dict(config["model"])
    for key in ("dtype", "features_only"):  # As it was trained; here it is float32.
        arguments.pop(key, None)
    model = create_model(**arguments)
    if not isinstance(model, StyleTransformer):
        raise InputError(
            f"{folder} has the weights of another network, {arguments['name']}: expected a run of "
            "configs/style.py, or --style=NAME."
        )
    return Stylizer(model, {"params": variables["params"]}, tile_size)


def main(arguments: Sequence[str]) -> None:
    """Does what the command line asks for."""
    from shift_jax.models.arguments import split_options
    from shift_jax.models.stylizer import load_style, style_names

    photos, options = split_options(arguments, _OPTIONS, __doc__)
    if options["style"] == "?":
        print("\n".join(style_names()))
        return
    # `split_options` keeps the last of each only.
    runs, styles = (
        [a.removeprefix(flag) for a in arguments if a.startswith(flag)]
        for flag in ("--model=", "--style=")
    )
    styles = [name for each in styles for name in each.split(",")]
    if len(photos) != 1 or not (runs or styles) or not options["output"]:
        raise InputError(
            "Name one photo or a folder of photos, a style, and what to write: python -m "
            "shift_jax.stylize photo.jpg --style=NAME (or --model=DIR) --output=painted.jpg."
        )
    check_choice("preserve_color", options["preserve_color"], ("true", "false"))
    sizes = {name: _pixels(options, name) for name in ("max_size", "tile_size")}
    source, output = Path(photos[0]), Path(options["output"])
    files = _folder(source, output) if os.path.isdir(source) else None
    if files is None:
        _check_file(source, output)

    stylizers = {name: load_style(name, sizes["tile_size"]) for name in dict.fromkeys(styles)}
    for run in dict.fromkeys(runs):
        stylizers[_label(run, stylizers)] = load_run(run, sizes["tile_size"])
    painter = Painter(stylizers, sizes["max_size"], options["preserve_color"] == "true")
    if files is None:
        painter.one(source, output)
    else:
        painter.folder(source, files, output)


def _folder(source: Path, output: Path) -> list[Path]:
    """The photos in a folder, as seen from there, if `output` may be a folder for them."""
    from shift_jax.data import image_paths

    here, there = source.resolve(), output.resolve()
    if here == there or here in there.parents:
        raise InputError(
            f"--output={output} is in {source} itself, where it would be taken for photos the "
            "next time: name another folder."
        )
    if not os.path.isdir(there.parent):
        raise InputError(f"The folder of --output={output} does not exist: make it.")
    check_folder(output)
    return [Path(path).relative_to(source) for path in image_paths(source)]


def _check_file(source: Path, output: Path) -> None:
    from shift_jax.data.decode.photo_files import check_photo_path

    if not os.path.isfile(source):
        raise InputError(f"There is no photo {source}: name an image file or a folder of them.")
    check_photo_path(output)
    if os.path.exists(output) and output.samefile(source):
        raise InputError(f"--output={output} is the photo itself: name another file.")


def _label(run: str, taken: dict) -> str:
    """The name of a run's folder, with a number where another has it."""
    name = Path(run).resolve().name
    names = (name, *(f"{name}-{number}" for number in range(2, len(taken) + 3)))
    return next(each for each in names if each not in taken)


def _pixels(options: dict, name: str) -> int:
    value = options[name]
    # Tiles of less than 16 pixels would be mostly halo.
    smallest = 16 if name == "tile_size" else 1
    if not value.isdecimal() or 0 < int(value) < smallest:
        raise InputError(
            f"{name} is {value!r}, expected a number of pixels of at least {smallest}, or 0."
        )
    return int(value)


if __name__ == "__main__":
    from functools import partial

    from shift_jax.training import cli

    sys.exit(cli.run(partial(main, sys.argv[1:]), argv=sys.argv[:1]))
