"""A picture of a style, some photos, and the photos in that style."""

from __future__ import annotations

import os
import pathlib

import numpy as np

from shift_jax.files import replaced_file

_GAP = 4


def save_sheet(
    path: str | os.PathLike[str], style: np.ndarray, photos: np.ndarray, stylized: np.ndarray
) -> None:
    """Draws the style at the left, then the photos in one row and the stylized ones below them.

    Args:
      path: of the picture, whose extension chooses the format; an old picture is replaced whole.
      style: uint8 [H, W, 3], shown as high as one photo.
      photos, stylized: uint8 [N, h, w, 3].
    """
    from PIL import Image

    path = pathlib.Path(path)
    count, height, width = stylized.shape[:3]
    style_width = max(1, round(height * style.shape[1] / style.shape[0]))
    sheet = Image.new("RGB", (style_width + count * (width + _GAP), 2 * height + _GAP), "white")
    sheet.paste(Image.fromarray(style).resize((style_width, height)), (0, 0))
    for row, images in enumerate((photos, stylized)):
        for column, image in enumerate(images):
            left = style_width + _GAP + column * (width + _GAP)
            sheet.paste(Image.fromarray(image), (left, row * (height + _GAP)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(path) as temporary:
        sheet.save(temporary)
