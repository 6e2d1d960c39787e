"""Paints a photo, or every photo in a folder, in the style that a network has learned.

    shift-jax stylize photo.jpg --style=mosaic --output=painted.jpg
    shift-jax stylize photo.jpg --model=runs/mosaic --output=painted.png
    shift-jax stylize photo.jpg --style=mosaic,candy --output=sheet.jpg
    shift-jax stylize frames/ --style=mosaic --output=painted_frames/

With several styles (--style=a,b, or --style and --model more than once), a photo becomes a contact
sheet, and a folder becomes a folder for each style.

The images of a folder and its subfolders keep their names, so a folder can hold the frames of a
video. Images that cannot be read, .heic and cameras' raw files among them, are left out and listed
at the end, with exit status 2.
"""

from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable

from shift_jax.commands.line import DIR, PATH, CommandLine
from shift_jax.errors import InputError


def _pixels(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isdecimal() or 0 < int(text) < least:
            raise ArgumentTypeError(f"a number of pixels of at least {least}, or 0")
        return int(text)

    return convert


line = CommandLine("stylize")
line.add("photo", "The photo, or a folder of photos.", PATH, nargs="*")
line.add(
    "--style",
    "Styles that come with the package; --style=? lists them.",
    action="append",
    default=[],
    metavar="NAME[,NAME …]",
)
line.add(
    "--model",
    "Folder of a run, whose newest checkpoint is taken, or of one checkpoint.",
    DIR,
    action="append",
    default=[],
)
line.add("--output", "The file or folder to write.", PATH)
line.add(
    "--max_size",
    "Scale photos down first, to a longer side of at most this many pixels; 0 keeps their size.",
    _pixels(1),
    default=0,
    metavar="PIXELS",
)
line.add(
    "--preserve_color",
    "Keep the photo's colors (Cb and Cr of YCbCr) and take only the lightness (Y).",
    bool,
    default=False,
)
line.add(
    "--tile_size",
    "Paint photos with a longer side in tiles of this size. 0 means tiles of 256 for photos of "
    "more than 65,536 pixels on a CPU and of more than a million elsewhere. The picture is the "
    "same but for rounding.",
    _pixels(16),  # Smaller tiles would be mostly halo.
    default=0,
    metavar="PIXELS",
)


def main(options: Namespace) -> None:
    from shift_jax.models.stylizer import style_names
    from shift_jax.tasks.painting import Painter, photos_to_paint
    from shift_jax.training.inference import load_stylizers

    if "?" in options.style:
        print("\n".join(style_names()))
        return
    if len(options.photo) != 1 or not (options.style or options.model) or not options.output:
        raise InputError(
            "Name one photo or a folder of photos, a style, and what to write, as in shift-jax "
            "stylize photo.jpg --style=NAME (or --model=DIR) --output=painted.jpg."
        )
    (source,) = options.photo
    files = photos_to_paint(source, options.output)
    styles = [name for each in options.style for name in each.split(",")]
    stylizers = load_stylizers(styles, options.model, options.tile_size)
    painter = Painter(stylizers, options.max_size, options.preserve_color)
    if files is None:
        painter.paint_photo(source, options.output)
    else:
        painter.paint_folder(source, files, options.output)


if __name__ == "__main__":
    line.run(main)
