"""Reads weight files of Keras (HDF5 or npz) by names such as `block1_conv1.kernel`."""

import math
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from shift_jax.errors import InputError
from shift_jax.weights.torch.archive import allowed_bytes

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"
_EXPECTED = (
    "expected Keras weights as .h5 or .npz, with names such as block1_conv1/kernel: save or "
    "download them again"
)
# Groups of a whole model's file that are not weights.
_NOT_WEIGHTS = {"optimizer_weights", "optimizer", "seed_generator", "metrics"}
# Keras 3 numbers the arrays of a layer. Only layers with a kernel get names for their numbers.
_NUMBERED = {"0": "kernel", "1": "bias"}


def read_keras(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the weights of a Keras file: HDF5 (`.h5`, `.hdf5`, `.weights.h5`) or `.npz`.

    Returns:
      The arrays in Keras's layout (kernels [height, width, input, output]) by the names
      `LAYER.kernel`, `LAYER.bias` and so on, such as `block1_conv1.kernel` or `fc1.bias`. Keras 3
      numbers the arrays of a layer: if they are a kernel of at least two dimensions and at most a
      bias, they get these names; otherwise they are `LAYER.0`, `LAYER.1` and so on.

    Raises:
      InputError: the file cannot be read, is damaged or has another format; or h5py is missing.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start, most_bytes = file.read(8), allowed_bytes(os.fstat(file.fileno()).st_size)
        if start == _HDF5_MAGIC:
            named = _read_hdf5(path, most_bytes)
        elif start.startswith(b"PK"):
            named = _read_npz(path, most_bytes)
        else:
            raise ValueError("it is neither HDF5 nor npz")
        if not named:
            raise ValueError("it holds no arrays")
    except InputError:
        raise
    except OSError as error:
        why = error.strerror or str(error)
        raise InputError(f"{path} cannot be read ({why}); {_EXPECTED}.") from error
    except (ValueError, RuntimeError, KeyError, TypeError) as error:  # h5py raises all of these.
        raise InputError(
            f"{path} cannot be read as Keras weights: {error}; {_EXPECTED}."
        ) from error
    return named


def _read_npz(path: Path, most_bytes: int) -> dict[str, np.ndarray]:
    named = {}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_total(sum(entry.file_size for entry in entries), most_bytes)
            if "model.weights.h5" in archive.namelist():
                raise ValueError("it is a whole .keras model; unpack model.weights.h5 from it")
            for entry in entries:
                name = entry.filename.removesuffix(".npy")
                if name == entry.filename:
                    raise ValueError(f"{name[:100]!r} in it is not an array")
                layer, _, leaf = name.replace("/", ".").rpartition(".")
                if not layer:
                    raise ValueError(f"array {name[:100]!r} is not named LAYER.kernel or alike")
                with archive.open(entry) as file:
                    array = _read_npy(file, name, entry.file_size)
                _add(named, layer, _leaf_name(layer, leaf), array)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise ValueError(f"its zip archive is damaged: {error}") from error
    return named


def _read_npy(file: Any, name: str, file_bytes: int) -> np.ndarray:
    """Reads an array whose header may lie; `np.load` would allocate whatever it says."""
    label = f"array {name[:100]!r}"
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(file)
    else:
        raise ValueError(f"{label} has the unknown version {version}")
    _check_dtype(dtype, label)
    length = math.prod(shape) * dtype.itemsize
    if any(n < 0 for n in shape) or length > file_bytes:
        raise ValueError(f"{label} claims {length} bytes, and the file has {file_bytes} for it")
    data = file.read(file_bytes)
    if len(data) != length:
        raise ValueError(f"{label} has {len(data)} bytes instead of {length}")
    array = np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
    return np.array(array, dtype.newbyteorder("="), order="C", copy=True)


def _read_hdf5(path: Path, most_bytes: int) -> dict[str, np.ndarray]:
    try:
        import h5py
    except ImportError as error:
        raise InputError(
            f"{path} is an HDF5 file, which needs h5py, and that is not installed: run "
            "pip install h5py."
        ) from error
    named = {}
    with h5py.File(path, "r") as file:
        has_more = isinstance(file.get("model_weights", getlink=True), h5py.HardLink)
        root = file["model_weights"] if has_more else file  # Files of whole models have more.
        groups: dict[Any, list] = {}
        total = 0
        for parts, dataset in _datasets(root, h5py, set()):
            label = f"array {'/'.join(parts)[:100]!r}"
            _check_dtype(dataset.dtype, label)
            # Both kinds would read other files, of the author's choice.
            if dataset.external or dataset.is_virtual:
                raise ValueError(f"{label} is kept in another file")
            total += dataset.size * dataset.dtype.itemsize
            _check_total(total, most_bytes)
            groups.setdefault(_layer_parts(parts), []).append((parts, dataset))
        firsts = [first for first, _ in groups]
        for (first, scope), datasets in groups.items():
            # Only models inside models have several scopes, or a deep one.
            is_nested = scope and (firsts.count(first) > 1 or len(datasets[0][0]) > 3)
            layer = f"{first}.{scope}" if is_nested else first
            if datasets[0][0][-2] == "vars":
                layer = _keras3_name(datasets[0][1], layer)
            leaves = _leaf_names(layer, datasets)
            for leaf, (_, dataset) in zip(leaves, datasets, strict=True):
                _add(named, layer, leaf, np.array(dataset[()], order="C"))
    return named


def _datasets(
    group: Any, h5py: Any, seen: set[int], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple, Any]]:
    """Yields `(names on the path, dataset)`; refuses links, which may be circular."""
    for name in group:
        if not above and name in _NOT_WEIGHTS:
            continue
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise ValueError(f"it has a link {name[:100]!r}, which is not followed")
        item = group[name]
        address = h5py.h5o.get_info(item.id).addr
        if address in seen:
            raise ValueError(f"it has {name[:100]!r} in two places")
        seen.add(address)
        if isinstance(item, h5py.Group):
            yield from _datasets(item, h5py, seen, (*above, name))
        elif isinstance(item, h5py.Dataset):
            if not above:
                raise ValueError(f"array {name[:100]!r} belongs to no layer")
            yield (*above, name), item


def _layer_parts(parts: tuple[str, ...]) -> tuple[str, str]:
    """Returns the name of the layer of an array, and the scope inside that layer."""
    if parts[-2] == "vars":  # Keras 3: layers/conv2d/vars/0, also inside other models.
        names = [name for name in parts[:-2] if name != "layers"]
        return ".".join(names) or "model", ""
    scope = parts[1:-1]
    return parts[0], ".".join(scope[1:] if len(scope) > 1 else scope)


def _keras3_name(dataset: Any, layer: str) -> str:
    # Groups are named by classes (conv2d_1); since Keras 3.7 an attribute has the layer's name.
    name = dataset.parent.attrs.get("name")
    if not isinstance(name, str) or not name:
        return layer
    above = layer.rpartition(".")[0]
    return f"{above}.{name}" if above else name


def _leaf_names(layer: str, datasets: list) -> list[str]:
    leaves = [parts[-1] for parts, _ in datasets]
    if datasets[0][0][-2] != "vars":
        return [_leaf_name(layer, leaf) for leaf in leaves]
    shapes = {leaf: dataset.shape for leaf, (_, dataset) in zip(leaves, datasets, strict=True)}
    has_kernel = len(shapes.get("0", ())) >= 2 and set(shapes) <= set(_NUMBERED)
    if has_kernel and len(shapes.get("1", (0,))) == 1:
        return [_NUMBERED[leaf] for leaf in leaves]
    return leaves


def _leaf_name(layer: str, leaf: str) -> str:
    """Returns `kernel` for `kernel:0`, and also for `block1_conv1_W_1:0` of Keras 1."""
    leaf = leaf.split(":")[0]
    old = re.fullmatch(re.escape(layer.split(".")[0]) + r"_([Wb])(_\d+)?", leaf)
    return {"W": "kernel", "b": "bias"}[old[1]] if old else leaf


def _add(named: dict[str, np.ndarray], layer: str, leaf: str, array: np.ndarray) -> None:
    name = f"{layer}.{leaf}"
    if name in named:
        raise ValueError(f"array {name[:100]!r} is there twice")
    named[name] = array


def _check_dtype(dtype: np.dtype, label: str) -> None:
    if dtype.kind not in "biufc":
        raise ValueError(f"{label} holds {dtype}, not numbers")


def _check_total(total: int, most_bytes: int) -> None:
    if total > most_bytes:
        raise ValueError(f"its arrays would need {total} bytes, far more than the file has")
