"""Pictures that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from shift_jax.errors import InputError

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
    # Beside the picture, so that the rename stays on one file system.
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    # Without matplotlib's version, so that the same picture is the same file.
    metadata = {"Software": None} if path.suffix.lower() == ".png" else None
    try:
        figure.savefig(unfinished, metadata=metadata)
        os.replace(unfinished, path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror}): name a file in a folder that exists and "
            "can be written to."
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
