"""Writes and reads variables as safetensors files, which other libraries can read too."""

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
    """Writes nested dicts of arrays to a file; equal content gives equal bytes.

    If writing fails, an existing file keeps its content. The name of an array is its path, such as
    `params/stem/kernel`. Empty dicts are not stored.

    Args:
      path: of the file; its folder must exist.
      variables: nested dicts of arrays, such as `{"params": ..., "batch_stats": ...}`, of
        booleans, integers, float16, bfloat16, float32 or float64.
      metadata: strings by names, such as the name of the model and the license.

    Raises:
      InputError: a value cannot be stored, or the file cannot be written.
    """
    library = _library()
    for key, value in metadata.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InputError(
                f"The metadata has {key!r}: {value!r}, expected strings as names and values: "
                "convert it, for example with json.dumps."
            )
    arrays = dict(_flat(variables))
    if not arrays:  # The library would write a header that is not valid JSON.
        raise InputError(
            "The variables hold no arrays, expected at least one: pass those of a network."
        )
    content = _with_sorted_metadata(library.numpy.save(arrays, dict(metadata)))
    with output_file(path) as temporary:
        temporary.write_bytes(content)


def read_safetensors(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns `(variables, metadata)` from a safetensors file.

    The variables of a file of `write_safetensors` are nested dicts of numpy arrays. Files of other
    libraries, whose names have no "/", give a flat dict.

    Raises:
      InputError: the file cannot be read, is damaged or is not a safetensors file.
    """
    library = _library()
    expected = "expected an intact safetensors file: write or download it again"
    try:
        with Path(path).open("rb"):  # Its error has a clearer message than the library's.
            pass
        with library.safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            names = file.keys()
            flat = {name: file.get_tensor(name) for name in names}
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"{path} cannot be read ({why}); {expected}.") from error
    except (library.SafetensorError, TypeError, AttributeError, ValueError) as error:
        # The library raises TypeError or AttributeError for dtypes that numpy does not have.
        raise InputError(
            f"{path} is not a safetensors file or is damaged ({error}); {expected}."
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
            "Safetensors files need the library safetensors, which is not installed: run "
            "pip install safetensors."
        ) from error
    return safetensors


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    for name, value in tree.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise InputError(
                f"The variables have the name {name!r} in {prefix or '/'!r}, expected strings "
                "without '/', which separates the names in the file: rename it."
            )
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
            continue
        # The library ignores strides and writes the memory as it is.
        array = np.asarray(value, order="C")
        if array.dtype.kind not in "biuf" and array.dtype != ml_dtypes.bfloat16:
            raise InputError(
                f"{prefix + name!r} has type {array.dtype}, expected booleans, integers or floats "
                "of up to 64 bits: convert it."
            )
        yield prefix + name, array


def _with_sorted_metadata(content: bytes) -> memoryview | bytes:
    """Sorts the metadata, whose order is random otherwise, so that files have stable checksums."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    metadata = header.pop("__metadata__", {})
    header = {"__metadata__": dict(sorted(metadata.items())), **header}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # Aligns the elements.
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
                f"{path} has {name!r} inside or beside an array of the same name, expected names "
                "such as params/stem/kernel: write it again."
            )
        node[leaf] = array
    return tree
