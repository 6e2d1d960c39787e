"""Writes and reads variables as safetensors files, the format for weights that others can use."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from shift_jax.errors import InputError
from shift_jax.files import output_file


def write_safetensors(
    path: str | os.PathLike, variables: Mapping[str, Any], metadata: Mapping[str, str]
) -> None:
    """Writes nested dicts of arrays to `path`; same content, same bytes.

    The file is complete, or not there, or still the old one. Arrays are named by their place,
    such as `params/stem/kernel`. Empty dicts leave no trace.

    Args:
      path: Where to write; the folder must exist.
      variables: Nested dicts of arrays, such as `{"params": ..., "batch_stats": ...}`, of
        booleans, integers, float16, bfloat16, float32 or float64.
      metadata: Strings by names, such as the name of the model and the license.

    Raises:
      InputError: A value cannot be stored, or the file cannot be written.
    """
    library = _library()
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InputError(
                f"The metadata has {key!r}: {value!r}, expected only strings by strings; "
                "convert it, for example with json.dumps."
            )
    arrays = dict(_flat(variables))
    if not arrays:  # The library would write a header that is no JSON.
        raise InputError("The variables hold no arrays, expected at least one; pass trained ones.")
    content = _with_sorted_metadata(library.numpy.save(arrays, dict(metadata)))
    with output_file(path) as temporary:
        temporary.write_bytes(content)


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns `(variables, metadata)` of a file of `write_safetensors`.

    The variables are nested dicts of numpy arrays; names without "/" of other people's files give
    a flat dict.

    Raises:
      InputError: The file cannot be read, is damaged or no safetensors file.
    """
    library = _library()
    expected = "expected an intact safetensors file: write or download it again"
    try:
        with Path(path).open("rb"):  # For the words of the error: the library has its own.
            pass
        with library.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            flat = {name: file.get_tensor(name) for name in names}
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"{path} cannot be read ({why}); {expected}.") from error
    except (library.SafetensorError, TypeError, AttributeError, ValueError) as error:
        # The second and third are how it says that numpy has no such type.
        raise InputError(
            f"{path} is no safetensors file or damaged ({error}); {expected}."
        ) from error
    return _nested(flat, path), metadata


def sha256(path: str | os.PathLike) -> str:
    """Returns the SHA-256 of a file as 64 hexadecimal digits; raises `InputError`."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError(f"{path} cannot be read ({why}); expected a file.") from error


def _library() -> Any:
    try:
        import safetensors
        import safetensors.numpy
    except ImportError as error:
        raise InputError(
            "The library safetensors is not installed, which reads and writes these files; "
            "run: pip install safetensors"
        ) from error
    return safetensors


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise InputError(
                f"The variables have the name {name!r} in {prefix or '/'!r}, expected strings "
                "without '/', which separates the names in the file; rename it."
            )
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
            continue
        # The library writes memory as it lies there, whatever the strides.
        array = np.asarray(value, order="C")
        if array.dtype.kind not in "biuf" and array.dtype != ml_dtypes.bfloat16:
            raise InputError(
                f"{prefix + name!r} has type {array.dtype}, expected booleans, integers or floats "
                "of up to 64 bits; convert it."
            )
        yield prefix + name, array


def _with_sorted_metadata(content: bytes) -> memoryview | bytes:
    """Sorts what the library writes in a random order, so that checksums of files can be kept."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = header.pop("__metadata__", {})
    header = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # The elements are to be aligned.
    return b"".join([len(text).to_bytes(8, "little"), text, memoryview(content)[end:]])


def _nested(flat: Mapping[str, np.ndarray], path: str | os.PathLike) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, array in flat.items():
        *folders, leaf = name.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
            if not isinstance(node, dict):
                break
        if not isinstance(node, dict) or leaf in node:
            raise InputError(
                f"{path} has {name!r} within or beside another array of that name; expected names "
                "such as params/stem/kernel."
            )
        node[leaf] = array
    return tree
