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

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shift_jax.errors import InputError, check_choice

if TYPE_CHECKING:
    from shift_jax.data.photo_files import Photo
    from shift_jax.models.stylizer import Stylizer

# Photos of phones and cameras that Pillow does not read, or only a thumbnail in them.
_NOT_READ = frozenset([".heic", ".heif", ".hif", ".jxl", ".dng", ".cr2", ".cr3"]) | frozenset(
    [".nef", ".arw", ".orf", ".raf", ".rw2"]
)
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
    from shift_jax.training.checkpoints import find_checkpoint, restore_variables
    from shift_jax.training.workdir import read_config

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


def stylize_photo(
    photo: Photo,
    stylizer: Stylizer,
    *,
    preserve_color: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Photo:
    """Returns a photo in a network's style, with the photo's own alpha.

    Args:
      photo: from `shift_jax.data.photo_files.open_photo`.
      stylizer: the network.
      preserve_color: whether to keep the photo's colours, see `with_colors_of` there.
      progress: see `Stylizer.__call__`.
    """
    from shift_jax.data.photo_files import with_colors_of

    pixels = stylizer(photo.pixels, progress)
    if preserve_color:
        pixels = with_colors_of(photo.pixels, pixels)
    return photo._replace(pixels=pixels)


def main(arguments: Sequence[str]) -> None:
    """Does what the command line asks for."""
    from shift_jax.models.arguments import refuse_unknown, split_arguments
    from shift_jax.models.stylizer import load_style, style_names

    if {"--help", "-h"} & set(arguments):
        print(__doc__)
        return
    photos, options, unknown = split_arguments(arguments, _OPTIONS)
    refuse_unknown(unknown, _OPTIONS)
    if options["style"] == "?":
        print("\n".join(style_names()))
        return
    # `split_arguments` keeps the last of each only.
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
    work = _Work(stylizers, sizes["max_size"], options["preserve_color"] == "true")
    if files is None:
        work.one(source, output)
    else:
        work.folder(source, files, output)


class _Work(NamedTuple):
    """What is to be done with each photo."""

    stylizers: dict[str, Stylizer]
    max_size: int
    preserve_color: bool

    def one(self, source: Path, output: Path) -> None:
        """A photo to a photo, or to a contact sheet of several styles."""
        from shift_jax.data.photo_files import (
            check_photo_path,
            contact_sheet,
            contact_sheet_size,
            open_photo,
            save_photo,
        )

        photo = open_photo(source, self.max_size)
        height, width = photo.pixels.shape[:2]
        several = len(self.stylizers) > 1
        size = contact_sheet_size(["photo", *self.stylizers], (height, width))
        check_photo_path(output, size if several else (height, width))
        started = time.perf_counter()
        painted = {name: self._painted(photo, name) for name in self.stylizers}
        seconds = time.perf_counter() - started
        if several:
            pictures = [("photo", photo), *painted.items()]
            sheet = contact_sheet([(name, each.pixels) for name, each in pictures])
            result = photo._replace(pixels=sheet, alpha=None)
        else:
            (result,) = painted.values()
        with _writing(output):
            save_photo(output, result)
        each = f" in each of {len(painted)} styles" if several else ""
        speed = _speed(len(painted) * height * width, seconds)
        print(f"{source}: {width}×{height} pixels{each} in {speed}; written to {output}")

    def folder(self, source: Path, files: Sequence[Path], output: Path) -> None:
        """Each photo of a folder, to the same name in another one."""
        import tqdm

        from shift_jax.data.folder import image_names
        from shift_jax.data.photo_files import check_photo_path, open_photo, save_photo

        outputs = {name: output / name for name in self.stylizers}
        if len(outputs) == 1:
            outputs = dict.fromkeys(outputs, output)
        for folder in outputs.values():
            _check_folder(folder)
        not_read = list(image_names(source, _NOT_READ, nested=True))
        refused, done, pixels, seconds = [], 0, 0, 0.0
        try:
            for file in tqdm.tqdm(files, unit="photo", disable=not sys.stderr.isatty()):
                targets = {name: folder / file for name, folder in outputs.items()}
                try:
                    photo = open_photo(source / file, self.max_size)
                    for target in targets.values():
                        with _writing(target):
                            target.parent.mkdir(parents=True, exist_ok=True)
                        check_photo_path(target, photo.pixels.shape[:2])
                except InputError as error:
                    refused.append(str(error))
                    continue
                for name, target in targets.items():
                    started = time.perf_counter()
                    painted = self._painted(photo, name, layers=False)
                    seconds += time.perf_counter() - started
                    pixels += photo.pixels.shape[0] * photo.pixels.shape[1]
                    try:
                        with _writing(target):
                            save_photo(target, painted)
                    except InputError as error:
                        refused.append(str(error))
                        break
                else:
                    done += 1
        finally:  # After hours, what stops it must not keep this back.
            if not_read:
                endings = ", ".join(sorted({Path(name).suffix.lower() for name in not_read}))
                refused.append(
                    f"{len(not_read)} photos of kinds that are not read ({endings}): convert them "
                    "to .jpg or .png."
                )
            for sentence in refused:
                print(f"left out: {sentence}", file=sys.stderr)
            if done:
                print(
                    f"{done} photos, {pixels / 1e6:.1f} megapixels in {_speed(pixels, seconds)}; "
                    f"written to {output}"
                )
        total = len(files) + len(not_read)
        if refused:
            raise InputError(
                f"{total - done} of the {total} photos in {source} were left out, for the reasons "
                "above: mend or remove them."
            )

    def _painted(self, photo: Photo, name: str, layers: bool = True) -> Photo:
        """One photo in one style, with a progress bar over the layers where that takes long."""
        import tqdm

        stylizer = self.stylizers[name]
        hidden = not (layers and sys.stderr.isatty())
        hidden |= stylizer.takes_whole(*photo.pixels.shape[:2])
        with tqdm.tqdm(total=stylizer.layers, unit="layer", desc=name, disable=hidden) as bar:
            try:
                return stylize_photo(
                    photo,
                    stylizer,
                    preserve_color=self.preserve_color,
                    progress=lambda _: bar.update(),
                )
            except InputError as error:  # Of the network: which of them, it does not know.
                raise InputError(f"{name}: {error}") from error


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Says in one sentence why `path` cannot be written."""
    from shift_jax.training import cli

    try:
        yield
    except OSError as error:
        said = f"{path} cannot be written ({error.strerror})"
        if error.errno in cli.STORAGE_ERRORS:
            raise cli.StorageError(
                f"{said}: make room, mend the disk or choose another place, and start again."
            ) from error
        raise InputError(f"{said}: name another --output.") from error


def _speed(pixels: int, seconds: float) -> str:
    """What painting took; that of a few pixels says nothing of a megapixel."""
    each = f", {seconds / pixels * 1e6:.2f} s per megapixel" if pixels >= 100_000 else ""
    return f"{seconds:.1f} s{each}, compiling included"


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
    _check_folder(output)
    return [Path(path).relative_to(source) for path in image_paths(source)]


def _check_folder(path: Path) -> None:
    """Raises InputError unless photos can be put into `path`, or into a new folder there."""
    with _writing(path), contextlib.suppress(FileNotFoundError):
        os.lstat(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise InputError(
            f"{path} is a file, expected a folder to write photos to: name another --output."
        )


def _check_file(source: Path, output: Path) -> None:
    from shift_jax.data.photo_files import check_photo_path

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
