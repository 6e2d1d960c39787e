"""Saving pictures."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shift_jax.errors import InputError
from shift_jax.files import output_file

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def create_folder(folder: Path) -> None:
    """Creates a folder for pictures where it is missing; raises InputError if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be created ({error.strerror}): name another --output."
        ) from error


def save_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Writes a figure to a new or existing picture; if that fails, an existing picture stays.

    Args:
      figure: a figure with a canvas of its own, as by `FigureCanvasAgg(figure)`.
      path: the picture; its extension decides the format, such as .png, .svg or .pdf.

    Raises:
      InputError: an unsupported image extension, or a file that cannot be written.
    """
    path = Path(path)
    formats = figure.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise InputError(
            f"{path} has an unsupported image extension: expected one such as .png or .svg."
        )
    # Without matplotlib's version, equal pictures are equal files.
    metadata = {"Software": None} if path.suffix.lower() == ".png" else None
    with output_file(path) as temporary:
        figure.savefig(temporary, metadata=metadata)
