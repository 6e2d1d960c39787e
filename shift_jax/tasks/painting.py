"""Paints photos, and folders of photos, with style networks."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shift_jax.errors import STORAGE_ERRORS, InputError, StorageError

if TYPE_CHECKING:
    from shift_jax.data.decode.photo_files import Photo
    from shift_jax.models.stylizer import Stylizer


def stylize_photo(
    photo: Photo,
    stylizer: Stylizer,
    *,
    preserve_color: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Photo:
    """Returns a photo in a network's style, with the photo's own alpha.

    Args:
      photo: from `shift_jax.data.decode.photo_files.open_photo`.
      stylizer: the network.
      preserve_color: whether to keep the photo's colors, see `with_colors_of` there.
      progress: see `Stylizer.__call__`.
    """
    from shift_jax.data.decode.photo_files import with_colors_of

    pixels = stylizer(photo.pixels, progress)
    if preserve_color:
        pixels = with_colors_of(photo.pixels, pixels)
    return photo._replace(pixels=pixels)


def photos_to_paint(source: Path, output: Path) -> list[Path] | None:
    """Returns the photos in a folder, as seen from there, or None where `source` is one photo.

    Raises:
      InputError: no such photo or folder, or an `output` that cannot take what is painted.
    """
    from shift_jax.data import image_paths
    from shift_jax.data.decode.photo_files import check_photo_path

    if not os.path.isdir(source):
        if not os.path.isfile(source):
            raise InputError(f"There is no photo {source}: name an image file or a folder of them.")
        check_photo_path(output)
        if os.path.exists(output) and output.samefile(source):
            raise InputError(f"--output={output} is the photo itself: name another file.")
        return None
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


class Painter(NamedTuple):
    """Paints photos in one or more styles.

    Attributes:
      stylizers: the networks by their names.
      max_size: longest side in pixels that photos are scaled down to; 0 leaves them as they are.
      preserve_color: see `stylize_photo`.
    """

    stylizers: dict[str, Stylizer]
    max_size: int
    preserve_color: bool

    def paint_photo(self, source: Path, output: Path) -> None:
        """Paints a photo, or a contact sheet of it in several styles, and prints what it did.

        Raises:
          InputError: a photo that cannot be read, or an output that cannot be written.
          StorageError: a disk that failed or is full.
        """
        from shift_jax.data.decode.photo_files import (
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

    def paint_folder(self, source: Path, files: Sequence[Path], output: Path) -> None:
        """Paints each photo of a folder to the same name in another folder, and prints how many.

        Args:
          source: the folder.
          files: its photos, as seen from there.
          output: folder of the pictures; with several styles, of a folder for each style.

        Raises:
          InputError: photos that were left out, each with its reason on stderr.
          StorageError: a disk that failed or is full.
        """
        import tqdm

        from shift_jax.data.decode.photo_files import check_photo_path, open_photo, save_photo
        from shift_jax.data.sources.listing import UNSUPPORTED_EXTENSIONS, image_names

        outputs = {name: output / name for name in self.stylizers}
        if len(outputs) == 1:
            outputs = dict.fromkeys(outputs, output)
        for folder in outputs.values():
            _check_folder(folder)
        not_read = list(image_names(source, UNSUPPORTED_EXTENSIONS, nested=True))
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
        finally:  # Hours of work are reported even where an error ends them.
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
                "above: fix or remove them."
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
    try:
        yield
    except OSError as error:
        said = f"{path} cannot be written ({error.strerror})"
        if error.errno in STORAGE_ERRORS:
            raise StorageError(
                f"{said}: make room, fix the disk or choose another place, and start again."
            ) from error
        raise InputError(f"{said}: name another --output.") from error


def _speed(pixels: int, seconds: float) -> str:
    """The time that painting took; a few pixels say nothing about a megapixel."""
    each = f", {seconds / pixels * 1e6:.2f} s per megapixel" if pixels >= 100_000 else ""
    return f"{seconds:.1f} s{each}, compiling included"


def _check_folder(path: Path) -> None:
    """Raises InputError unless photos can be put into `path`, or into a new folder there."""
    with _writing(path), contextlib.suppress(FileNotFoundError):
        os.lstat(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise InputError(
            f"{path} is a file, expected a folder to write photos to: name another --output."
        )
