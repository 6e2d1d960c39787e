"""Photos for people to look at: reading them upright with alpha and profile, and writing them."""

from __future__ import annotations

import functools
import io
import math
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shift_jax.data.decode import pillow
from shift_jax.data.decode.unreadable import UndecodableError, UnreadableImageError
from shift_jax.errors import InputError
from shift_jax.files import replaced_file

if TYPE_CHECKING:
    from PIL import Image, ImageFont

# Pillow registers more writers, but some need a plug-in, another mode or other sizes.
_FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    # All written in color: readers go by the first bytes, and numbered frames keep their names.
    "PPM": (".ppm", ".pnm", ".pgm", ".pbm"),
    "GIF": (".gif",),
    "TGA": (".tga",),
    "JPEG2000": (".jp2", ".j2k"),
    "AVIF": (".avif",),
}
# Longest side in pixels that the format or its library allows; libavif writes more than it reads.
_LONGEST = {"JPEG": 65500, "WEBP": 16383, "GIF": 65535, "TGA": 65535, "AVIF": 32768}
_WITH_ALPHA = ("PNG", "TIFF", "WEBP")
_MARGIN = 8
_LABEL_HEIGHT = 24


class Photo(NamedTuple):
    """A photo, upright.

    Attributes:
      pixels: uint8 [H, W, 3], RGB; transparent pixels are blended with white.
      alpha: uint8 [H, W], or None if every pixel is opaque.
      profile: ICC profile of the colors, or None if the file has none for RGB.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None


def open_photo(path: str | os.PathLike, max_size: int = 0) -> Photo:
    """Reads a photo of any format and mode that Pillow supports, rotated as its EXIF data say.

    Args:
      path: The file.
      max_size: Pixels to which a longer side is scaled down (Lanczos); 0 keeps the size.

    Raises:
      UnreadableImageError: the file does not exist, is not an image, is damaged or truncated.
    """
    from PIL import Image

    try:
        data = Path(path).read_bytes()
        with warnings.catch_warnings():
            # Pillow warns of damaged metadata and above 89 megapixels; it refuses twice that size.
            warnings.simplefilter("ignore")
            pixels = pillow.decode(data, channels=3)
            with Image.open(io.BytesIO(data)) as image:
                image.load()  # This rotates a TIFF, which then no longer asks for rotation.
                alpha = _alpha(image)
                profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
                turn = pillow.turn(image)
    except (OSError, UndecodableError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableImageError(os.fspath(path), reason) from error

    def seen(array: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(array)
        picture = picture if turn is None else picture.transpose(turn)
        if max_size and max(picture.size) > max_size:
            scale = max_size / max(picture.size)
            width, height = (max(1, round(side * scale)) for side in picture.size)
            picture = picture.resize((width, height), Image.Resampling.LANCZOS)
        return np.asarray(picture)

    return Photo(seen(pixels), None if alpha is None else seen(alpha), profile)


def check_photo_path(path: str | os.PathLike, size: tuple[int, int] = (1, 1)) -> None:
    """Raises InputError unless a photo of (height, width) `size` can be written to `path`."""
    path = Path(path)
    name = _format(path)
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass
    except OSError as error:  # For example, the name is too long.
        raise InputError(
            f"{path} cannot be written ({error.strerror}): name another file."
        ) from error
    if not path.absolute().parent.is_dir():
        raise InputError(f"The folder of {path} does not exist: create it.")
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected a file to write the photo to.")
    if max(size) > _LONGEST.get(name, max(size)):
        raise InputError(
            f"{path} would be {max(size)} pixels long, but {name} allows at most "
            f"{_LONGEST[name]}: write a PNG, or scale the photo down with --max_size."
        )


def save_photo(path: str | os.PathLike, photo: Photo) -> None:
    """Writes a photo in the format of the file's extension, whole or not at all.

    JPEG, WebP and AVIF get quality 95. PNG, TIFF and WebP keep alpha.

    Raises:
      InputError: the extension is not that of a format, the name is invalid, the folder does not
        exist, or the photo is too large for the format.
      OSError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    check_photo_path(path, photo.pixels.shape[:2])
    content = _encoded(photo, _format(path), path)
    with replaced_file(path) as temporary:
        temporary.write_bytes(content)


def _encoded(photo: Photo, name: str, path: Path) -> bytes:
    """Encodes a photo in one of Pillow's formats."""
    from PIL import Image

    picture = Image.fromarray(photo.pixels)
    if photo.alpha is not None and name in _WITH_ALPHA:
        picture.putalpha(Image.fromarray(photo.alpha))
    options: dict[str, Any] = {"icc_profile": photo.profile} if photo.profile else {}
    if name in ("JPEG", "WEBP", "AVIF"):
        options["quality"] = 95
    if name in ("JPEG", "AVIF"):
        options["subsampling"] = "4:4:4"
    file = io.BytesIO()
    try:
        picture.save(file, name, **options)
    except MemoryError:
        raise
    # Pillow's writers raise almost anything for a photo that the format cannot hold.
    except Exception as error:
        raise InputError(f"{path} cannot be written as {name} ({error}): write a PNG.") from error
    return file.getvalue()


def with_colors_of(photo: np.ndarray, luminance: np.ndarray) -> np.ndarray:
    """Combines the colors (Cb and Cr) of one image with the luminance (Y) of another.

    Args:
      photo: uint8 [H, W, 3], gives the colors.
      luminance: uint8 [H, W, 3], gives the luminance.

    Returns:
      uint8 [H, W, 3], RGB, converted by way of JPEG's YCbCr.
    """
    from PIL import Image

    colors, light = (Image.fromarray(image).convert("YCbCr") for image in (photo, luminance))
    bands = (light.getchannel("Y"), colors.getchannel("Cb"), colors.getchannel("Cr"))
    return np.asarray(Image.merge("YCbCr", bands).convert("RGB"))


def contact_sheet(
    pictures: Sequence[tuple[str, np.ndarray]], cell_size: int = 480, columns: int = 3
) -> np.ndarray:
    """Arranges labeled pictures row by row on white.

    Args:
      pictures: Pairs of a label and uint8 [H, W, 3], all of one size.
      cell_size: Longest side of a picture on the sheet in pixels; smaller pictures keep their size.
      columns: Pictures in a row.

    Returns:
      uint8 [H, W, 3].
    """
    from PIL import Image, ImageDraw

    sheet_size = contact_sheet_size(
        [label for label, _ in pictures], pictures[0][1].shape[:2], cell_size, columns
    )
    sheet = Image.new("RGB", (sheet_size[1], sheet_size[0]), "white")
    draw = ImageDraw.Draw(sheet)
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    cell_height, cell_width = (
        (side - _MARGIN) // number for side, number in zip(sheet_size, (rows, columns), strict=True)
    )
    height, width = _scaled(pictures[0][1].shape[:2], cell_size)
    for index, (label, pixels) in enumerate(pictures):
        row, column = divmod(index, columns)
        left, top = _MARGIN + column * cell_width, _MARGIN + row * cell_height
        draw.text((left, top), _shortened(label, cell_width - _MARGIN), "black", _font())
        picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left, top + _LABEL_HEIGHT))
    return np.asarray(sheet)


def contact_sheet_size(
    labels: Sequence[str], size: tuple[int, int], cell_size: int = 480, columns: int = 3
) -> tuple[int, int]:
    """Returns (height, width) of the contact sheet of pictures of (height, width) `size`."""
    height, width = _scaled(size, cell_size)
    # Narrow pictures get columns as wide as their labels, up to the cell size.
    longest = max(_label_width(label) for label in labels)
    width = max(width, min(longest, cell_size))
    columns = min(columns, len(labels))
    rows = -(-len(labels) // columns)
    return (
        rows * (height + _LABEL_HEIGHT + _MARGIN) + _MARGIN,
        columns * (width + _MARGIN) + _MARGIN,
    )


def _scaled(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Scales (height, width) down to fit a square of `longest` pixels."""
    scale = min(1.0, longest / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def _label_width(label: str) -> int:
    return math.ceil(_font().getlength(" ".join(label.split())))


@functools.cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(size=16)


def _shortened(label: str, width: int) -> str:
    """Cuts out the middle of a label that is wider than `width` pixels."""
    label = text = " ".join(label.split())
    kept = len(label)
    while _label_width(text) > width and kept:
        kept -= 1
        text = f"{label[: (kept + 1) // 2]}…{label[len(label) - kept // 2 :]}"
    return text


def _format(path: Path) -> str:
    """Returns Pillow's name of the format of a file to write."""
    from PIL import Image

    ending = path.suffix.lower()
    name = next((name for name, endings in _FORMATS.items() if ending in endings), None)
    Image.init()  # Until this call, Pillow does not know which libraries it has.
    if name not in Image.SAVE:
        raise InputError(
            f"{path} has an unsupported image extension, expected .jpg, .png, .webp, .tif, .bmp, "
            ".ppm or .gif."
        )
    return name


def _alpha(image: Image.Image) -> np.ndarray | None:
    if not image.has_transparency_data:
        return None
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return None if alpha.min() == 255 else alpha
