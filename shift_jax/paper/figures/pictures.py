"""Pictures that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shift_jax.errors import InputError
from shift_jax.files import output_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure, replacing a picture that is there at once, or keeping it where that fails.

    Args:
      figure: with a canvas of its own, as by `FigureCanvasAgg(figure)`.
      path: its ending decides the format, such as .png, .svg or .pdf.

    Raises:
      InputError: an ending that is no picture, or a file that cannot be written.
    """
    path = Path(path)
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise InputError(f"{path} has an ending for no picture, expected one such as .png or .svg.")
    # Without matplotlib's version, so that the same picture is the same file.
    metadata = {"Software": None} if path.suffix.lower() == ".png" else None
    with output_file(path) as temporary:
        figure.savefig(temporary, metadata=metadata)
