"""Galleries: the embeddings of many photos in one file, and which network they are of."""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shift_jax.errors import InputError
from shift_jax.files import as_input_error, output_file

_ADVICE = "choose another --output"


class Gallery(NamedTuple):
    """Faces and where they are in a network's space."""

    files: np.ndarray
    """str [N], N >= 1."""
    embeddings: np.ndarray
    """float32 [N, D], of length 1: products of two are their cosine similarity."""
    network: str
    """Fingerprint of the network: with embeddings of another these cannot be compared."""
    aligned: bool
    """Whether the photos were taken as they are, as aligned faces; else MTCNN aligned them."""


def check_gallery_path(path: str | os.PathLike) -> None:
    """Raises InputError unless a gallery can be written to `path`, tried by a file beside it."""
    path = Path(path)
    with as_input_error(path, _ADVICE):
        if path.is_dir():
            raise InputError(f"{path} is a folder: name a file in it, as {path / 'faces.npz'}.")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is a device or the like: name a file, as faces.npz.")
        if not path.absolute().parent.is_dir():
            raise InputError(f"The folder of {path} does not exist: make it.")
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(bytes(4096))  # Not empty: a full disk still takes a name.


def save_gallery(path: str | os.PathLike, gallery: Gallery) -> None:
    """Writes a gallery, whole or not at all; InputError where that is not possible."""
    # As a file, since to a name numpy adds .npz.
    with output_file(path, _ADVICE) as temporary, temporary.open("wb") as file:
        np.savez(file, **gallery._asdict())


def load_gallery(path: str | os.PathLike) -> Gallery:
    """Reads what `save_gallery` has written; InputError for anything else."""
    try:
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")  # Of damaged headers, which numpy takes for old ones.
            with np.load(file, allow_pickle=False) as arrays:
                # Reading them checks no more bytes than a damaged header says there are.
                if damaged := arrays.zip.testzip():
                    raise ValueError(damaged)
                gallery = Gallery(*(arrays[name] for name in Gallery._fields))
    except OSError as error:
        _refuse(path, error.strerror or str(error), error)
    except MemoryError as error:
        _refuse(path, "it does not fit into memory", error)
    except Exception as error:  # numpy and zipfile have no common type for what they raise.
        _refuse(path, "it is damaged or of another kind", error)
    _check(path, gallery)
    return gallery._replace(network=str(gallery.network), aligned=bool(gallery.aligned))


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of a network's arrays, their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8))  # numpy gives no buffer of bfloat16.
    return digest.hexdigest()


def check_comparable(path: str | os.PathLike, gallery: Gallery, network: str) -> None:
    """Raises InputError unless the gallery in `path` is of the network with this fingerprint."""
    if gallery.network != network:
        raise InputError(
            f"{os.fspath(path)} has embeddings of another network, which cannot be compared: give "
            "the --model that made them, or make them again by --embed with this one."
        )


def nearest(face: np.ndarray, gallery: Gallery, count: int) -> list[tuple[str, float]]:
    """Returns (file, similarity) of the faces most alike to one, the most similar first.

    Args:
      face: float [D], of length 1.
      gallery: the others, of the same network.
      count: how many.
    """
    similarities = gallery.embeddings @ face
    order = np.argsort(-similarities, kind="stable")[:count]
    return [(str(gallery.files[i]), float(similarities[i])) for i in order]


def _check(path: str | os.PathLike, gallery: Gallery) -> None:
    kinds = [(array.ndim, array.dtype.kind) for array in gallery]
    if kinds != [(1, "U"), (2, "f"), (0, "U"), (0, "b")]:
        _refuse(path, "its arrays are of other types or shapes")
    files, embeddings = gallery.files, gallery.embeddings
    if len(files) != len(embeddings):
        _refuse(path, f"it has {len(files)} names for {len(embeddings)} embeddings")
    if not len(embeddings):
        _refuse(path, "it is empty")
    with np.errstate(all="ignore"):
        wrong = np.sum(~(np.abs(np.linalg.norm(embeddings, axis=1) - 1) < 1e-3))
    if wrong:
        _refuse(path, f"{wrong:,} of its {len(embeddings):,} embeddings are not of length 1")


def _refuse(path: str | os.PathLike, why: str, cause: Exception | None = None) -> None:
    raise InputError(
        f"{os.fspath(path)} is no file of embeddings ({why}): make one by --embed=FOLDER "
        "--output=FILE.npz."
    ) from cause
