"""Paints photos and folders of them with style networks; `shift_jax.stylize` is the command."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from shift_jax.errors import InputError

if TYPE_CHECKING:
    from shift_jax.data.decode.photo_files import Photo
    from shift_jax.models.stylizer import Stylizer

# Photos of phones and cameras that Pillow does not read, or only a thumbnail in them.
_NOT_READ = frozenset([".heic", ".heif", ".hif", ".jxl", ".dng", ".cr2", ".cr3"]) | frozenset(
    [".nef", ".arw", ".orf", ".raf", ".rw2"]
)


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
      preserve_color: whether to keep the photo's colours, see `with_colors_of` there.
      progress: see `Stylizer.__call__`.
    """
    from shift_jax.data.decode.photo_files import with_colors_of

    pixels = stylizer(photo.pixels, progress)
    if preserve_color:
        pixels = with_colors_of(photo.pixels, pixels)
    return photo._replace(pixels=pixels)


class Painter(NamedTuple):
    """What is to be done with each photo.

    Attributes:
      stylizers: the networks by their names.
      max_size: longest side in pixels that photos are scaled down to, 0 for none.
      preserve_color: see `stylize_photo`.
    """

    stylizers: dict[str, Stylizer]
    max_size: int
    preserve_color: bool

    def one(self, source: Path, output: Path) -> None:
        """A photo to a photo, or to a contact sheet of several styles."""
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

    def folder(self, source: Path, files: Sequence[Path], output: Path) -> None:
        """Each photo of a folder, to the same name in another one."""
        import tqdm

        from shift_jax.data.decode.photo_files import check_photo_path, open_photo, save_photo
        from shift_jax.data.sources.folder import image_names

        outputs = {name: output / name for name in self.stylizers}
        if len(outputs) == 1:
            outputs = dict.fromkeys(outputs, output)
        for folder in outputs.values():
            check_folder(folder)
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


def check_folder(path: Path) -> None:
    """Raises InputError unless photos can be put into `path`, or into a new folder there."""
    with _writing(path), contextlib.suppress(FileNotFoundError):
        os.lstat(path)
    if os.path.lexists(path) and not os.path.isdir(path):
        raise InputError(
            f"{path} is a file, expected a folder to write photos to: name another --output."
        )
