"""Recognizes the format of a weight file by its content, whatever its name says."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Literal

from shift_jax.errors import InputError
from shift_jax.weights.caffe_file import is_caffe

Format = Literal["torch", "keras", "safetensors", "caffe"]

_HDF5 = b"\x89HDF\r\n\x1a\n"


def format_of(path: str | os.PathLike) -> Format:
    """Returns the format of a weight file.

    A file of no known format counts as "torch": that reader's message says what the file is.

    Raises:
      InputError: the file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            start = file.read(256)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError(
            f"{path} cannot be read ({why}); expected a weight file of PyTorch, Keras, Caffe or "
            "shift_jax."
        ) from error
    if is_safetensors(start):
        return "safetensors"
    if start.startswith(_HDF5) or (start.startswith(b"PK") and _holds_arrays(path)):
        return "keras"
    if is_caffe(start):
        return "caffe"
    return "torch"


def is_safetensors(start: bytes) -> bool:
    """Whether the first bytes of a file are the length and the JSON header of safetensors."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 40


def _holds_arrays(path: str | os.PathLike) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, OSError, ValueError):
        return False
    return any(name.endswith(".npy") or name == "model.weights.h5" for name in names)
