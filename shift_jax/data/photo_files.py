"""People's photos: read as they are to be seen, and written back."""

from __future__ import annotations

import contextlib
import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from shift_jax.data import pillow
from shift_jax.data.unreadable import UndecodableError, UnreadableImage
from shift_jax.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

_WITH_ALPHA = ("PNG", "TIFF", "WEBP")
# Of a side, in pixels: libjpeg's and libwebp's.
_LONGEST = {"JPEG": 65500, "WEBP": 16383}
_ORIENTATION = 0x0112
_MARGIN = 8
_LABEL_HEIGHT = 24


class Photo(NamedTuple):
    """A photo as it is to be seen.

    Attributes:
      pixels: uint8 [H, W, 3], RGB; what is transparent is laid over white.
      alpha: uint8 [H, W], None where nothing is transparent.
      profile: ICC profile of the colours, None where there is none or none of RGB.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None


def open_photo(path: str | os.PathLike, max_size: int = 0) -> Photo:
    """Reads a photo of any format and mode that Pillow knows, turned as its EXIF data say.

    Args:
      path: of the file.
      max_size: a longer side is scaled down to so many pixels (Lanczos); 0 for never.

    Raises:
      UnreadableImage: an `InputError`: no such file, no image, or a damaged or truncated one.
    """
    from PIL import Image

    try:
        data = Path(path).read_bytes()
        with warnings.catch_warnings():
            # Of sizes above 89 megapixels (twice that it refuses) and of damaged metadata.
            warnings.simplefilter("ignore")
            pixels = pillow.decode(data, channels=3)
            with Image.open(io.BytesIO(data)) as image:
                image.load()  # A TIFF is turned by this already, and then says so.
                alpha = _alpha(image)
                profile = image.info.get("icc_profile") if image.mode in ("RGB", "RGBA") else None
                turn = _turn(image)
    except (OSError, UndecodableError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UnreadableImage(os.fspath(path), reason) from error

    def seen(array: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(array)
        picture = picture if turn is None else picture.transpose(turn)
        if max_size and max(picture.size) > max_size:
            scale = max_size / max(picture.size)
            size = tuple(max(1, round(side * scale)) for side in picture.size)
            picture = picture.resize(size, Image.Resampling.LANCZOS)
        return np.asarray(picture)

    return Photo(seen(pixels), None if alpha is None else seen(alpha), profile)


def check_photo_path(path: str | os.PathLike, size: tuple[int, int] = (1, 1)) -> None:
    """Raises InputError unless a photo of (height, width) `size` can be written to `path`."""
    path = Path(path)
    name = _format(path)
    if not path.absolute().parent.is_dir():
        raise InputError(f"The folder of {path} does not exist: make it.")
    if path.is_dir():
        raise InputError(f"{path} is a folder, expected the name of a photo to write.")
    if max(size) > _LONGEST.get(name, max(size)):
        raise InputError(
            f"{path} would be {max(size)} pixels long and {name} holds {_LONGEST[name]} at most: "
            "write a PNG, or scale the photo down by --max_size."
        )


def save_photo(path: str | os.PathLike, photo: Photo) -> None:
    """Writes a photo in the format of the file's ending; complete, or not at all.

    JPEG and WebP have quality 95; alpha is kept where the format has it.

    Raises:
      InputError: an ending of no format, no such folder, or too large for the format.
      OSError: the disk is full, or the folder can not be written.
    """
    from PIL import Image

    path = Path(path)
    check_photo_path(path, photo.pixels.shape[:2])
    name = _format(path)
    picture = Image.fromarray(photo.pixels)
    if photo.alpha is not None and name in _WITH_ALPHA:
        picture.putalpha(Image.fromarray(photo.alpha))
    options = {"icc_profile": photo.profile} if photo.profile else {}
    if name in ("JPEG", "WEBP"):
        options["quality"] = 95
    if name == "JPEG":
        options["subsampling"] = "4:4:4"
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            picture.save(file, name, **options)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def with_colors_of(photo: np.ndarray, luminance: np.ndarray) -> np.ndarray:
    """Returns Cb and Cr of one image with Y of another (JPEG's YCbCr), uint8 [H, W, 3].

    Args:
      photo: uint8 [H, W, 3], for the colours.
      luminance: uint8 [H, W, 3], for Y.
    """
    from PIL import Image

    colors, light = (Image.fromarray(image).convert("YCbCr") for image in (photo, luminance))
    bands = (light.getchannel("Y"), colors.getchannel("Cb"), colors.getchannel("Cr"))
    return np.asarray(Image.merge("YCbCr", bands).convert("RGB"))


def contact_sheet(
    pictures: Sequence[tuple[str, np.ndarray]], cell_size: int = 480, columns: int = 3
) -> np.ndarray:
    """Returns labelled pictures in rows, the first one first, uint8 [H, W, 3] on white.

    Args:
      pictures: (label, uint8 [H, W, 3]), of one size.
      cell_size: longest side of each, in pixels; smaller ones keep their size.
      columns: how many beside each other.
    """
    from PIL import Image, ImageDraw, ImageFont

    height, width = pictures[0][1].shape[:2]
    scale = min(1.0, cell_size / max(height, width))
    width, height = (max(1, round(side * scale)) for side in (width, height))
    columns = min(columns, len(pictures))
    # Room for the label of a narrow picture.
    cell = max(width, 120) + _MARGIN, height + _LABEL_HEIGHT + _MARGIN
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell[0] + _MARGIN, rows * cell[1] + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=16)
    for index, (label, pixels) in enumerate(pictures):
        row, column = divmod(index, columns)
        left, top = _MARGIN + column * cell[0], _MARGIN + row * cell[1]
        draw.text((left, top), label, "black", font)
        picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(picture, (left, top + _LABEL_HEIGHT))
    return np.asarray(sheet)


def _format(path: Path) -> str:
    """Pillow's name of the format of a file to write."""
    from PIL import Image

    name = Image.registered_extensions().get(path.suffix.lower())
    if name not in Image.SAVE:
        raise InputError(
            f"{path} does not end like an image that can be written: expected .jpg, .png, .webp "
            "or .tif."
        )
    return name


def _alpha(image: Image.Image) -> np.ndarray | None:
    if not image.has_transparency_data:
        return None
    alpha = np.asarray(image.convert("RGBA").getchannel("A"))
    return None if alpha.min() == 255 else alpha


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How the image is to be turned to be seen upright."""
    from PIL.Image import Transpose

    orientation = 1
    # Damaged EXIF data, of which Pillow raises almost anything, are no reason to refuse a photo.
    with contextlib.suppress(Exception):
        orientation = image.getexif().get(_ORIENTATION, 1)
    return {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(orientation)
