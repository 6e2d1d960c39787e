"""Galleries: the embeddings of many photos in one file, with the network that made them."""

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
    """The embeddings of many faces by one network."""

    files: np.ndarray
    """str [N], N >= 1."""
    embeddings: np.ndarray
    """float32 [N, D], unit vectors, whose dot products are cosine similarities."""
    network: str
    """Fingerprint of the network. Embeddings of different networks cannot be compared."""
    aligned: bool
    """Whether the photos were aligned faces already; otherwise MTCNN aligned them."""


def check_gallery_path(path: str | os.PathLike) -> None:
    """Raises InputError unless a gallery can be written to `path`; tests this with another file."""
    path = Path(path)
    with as_input_error(path, _ADVICE):
        if path.is_dir():
            raise InputError(f"{path} is a folder: name a file, such as {path / 'faces.npz'}.")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a regular file: name a file, such as faces.npz.")
        if not path.absolute().parent.is_dir():
            raise InputError(f"The folder of {path} does not exist: create it.")
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(bytes(4096))  # A full disk would still accept an empty file.


def save_gallery(path: str | os.PathLike, gallery: Gallery) -> None:
    """Writes a gallery, whole or not at all; raises InputError if that is not possible."""
    # Given a name instead of a file, numpy would append .npz.
    with output_file(path, _ADVICE) as temporary, temporary.open("wb") as file:
        np.savez(file, **gallery._asdict())


def load_gallery(path: str | os.PathLike) -> Gallery:
    """Reads what `save_gallery` has written; raises InputError for anything else."""
    try:
        with warnings.catch_warnings(), open(path, "rb") as file:
            warnings.simplefilter("ignore")  # numpy takes damaged headers for old ones.
            with np.load(file, allow_pickle=False) as arrays:
                # Reading alone checks only as many bytes as a header says, even if damaged.
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
    """Returns the SHA-256 of a network's arrays with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)  # numpy gives no buffer of bfloat16.
    return digest.hexdigest()


def check_comparable(path: str | os.PathLike, gallery: Gallery, network: str) -> None:
    """Raises InputError unless the network with this fingerprint made the gallery in `path`."""
    if gallery.network != network:
        raise InputError(
            f"{os.fspath(path)} has the embeddings of another network, which cannot be compared: "
            "use the --model that made them, or make them again with --embed and this model."
        )


def nearest(face: np.ndarray, gallery: Gallery, count: int) -> list[tuple[str, float]]:
    """Returns (file, similarity) of the faces most similar to one, the most similar first.

    Args:
      face: float [D], a unit vector.
      gallery: The other faces, embedded by the same network.
      count: Number of faces to return.
    """
    similarities = gallery.embeddings @ face
    order = np.argsort(-similarities, kind="stable")[:count]
    return [(str(gallery.files[i]), float(similarities[i])) for i in order]


def _check(path: str | os.PathLike, gallery: Gallery) -> None:
    kinds = [(array.ndim, array.dtype.kind) for array in map(np.asarray, gallery)]
    if kinds != [(1, "U"), (2, "f"), (0, "U"), (0, "b")]:
        _refuse(path, "its arrays have other types or shapes")
    files, embeddings = gallery.files, gallery.embeddings
    if len(files) != len(embeddings):
        _refuse(path, f"it has {len(files)} names for {len(embeddings)} embeddings")
    if not len(embeddings):
        _refuse(path, "it is empty")
    with np.errstate(all="ignore"):
        wrong = np.sum(~(np.abs(np.linalg.norm(embeddings, axis=1) - 1) < 1e-3))
    if wrong:
        _refuse(path, f"{wrong:,} of its {len(embeddings):,} embeddings do not have length 1")


def _refuse(path: str | os.PathLike, why: str, cause: Exception | None = None) -> None:
    raise InputError(
        f"{os.fspath(path)} is not a file of embeddings ({why}): make one with --embed=FOLDER "
        "--output=FILE.npz."
    ) from cause
