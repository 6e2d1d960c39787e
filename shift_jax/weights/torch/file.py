"""Reads weight files of PyTorch without PyTorch, and without running their content.

`torch.save` writes a pickle, and unpickling may run any program. The reader in `pickle` runs
nothing; it only collects the tensors, by the names that PyTorch's `state_dict` gives them, and the
scalars beside them.
"""

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shift_jax.errors import InputError
from shift_jax.weights.torch.archive import LegacyArchive, ZipArchive, allowed_bytes
from shift_jax.weights.torch.globals import (
    Instance,
    OtherTensor,
    RefusedGlobalError,
    Storage,
    Tensor,
)

# Keys under which checkpoints keep their weights; other entries are metadata or are ignored.
_WEIGHT_KEYS = ("state_dict", "model", "net", "model_state_dict")
# Far above any real model: a file of 1 kB can describe 2^100 modules that share their children.
_MAX_VISITS, _MAX_DEPTH, _MAX_NAME = 100_000, 100, 1000

_EXPECTED = "expected a PyTorch weight file, as torch.save(model.state_dict(), path) writes it"
# First bytes of other files, what the files are, and what to do with them.
_OTHER_FILES = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "read Keras weights with read_keras"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it first"),
    (b"BZh", "compressed with bzip2", "unpack it first"),
    (b"\xfd7zXZ", "compressed with xz", "unpack it first"),
    (
        b"version https://git-lfs",
        "the pointer of Git LFS to a file",
        "fetch that with git lfs pull",
    ),
    (b"<", "a web page", "download the file that it links to"),
    (b"\x04\x00\x00\x00", "a file of Lua Torch", "convert it with its own tools first"),
)


@dataclass(frozen=True)
class TorchFile:
    """The content of a PyTorch weight file.

    Attributes:
      tensors: by the names of `state_dict`, such as `layer1.0.conv1.weight`, in the order of the
        file, without the "module." that `DataParallel` prepends. The arrays are contiguous and
        share no memory.
      metadata: scalars beside the weights, such as `acc` and `epoch`.
    """

    tensors: dict[str, np.ndarray]
    metadata: dict[str, int | float | str]


def read_torch(path: str | os.PathLike) -> TorchFile:
    """Reads a `.pth`, `.pt` or `.t7` file that `torch.save` of any version since 0.1.10 wrote.

    The file may hold a state dict or a whole module, or a dict with either under the key
    `state_dict`, `model`, `net` or `model_state_dict`. Nothing in the file is run.

    Raises:
      InputError: the file cannot be read, is damaged or has another format, asks for something
        that no weight file needs, or holds a tensor of a kind that numpy does not have.
    """
    try:
        with Path(path).open("rb") as file:
            file_bytes = os.fstat(file.fileno()).st_size
            start = file.read(512)
            _refuse_other_files(path, start)
            file.seek(0)
            is_zip = start.startswith(b"PK")
            archive = (ZipArchive if is_zip else LegacyArchive)(file, file_bytes)
            return _read(archive, file_bytes)
    except InputError:
        raise
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError(f"{path} cannot be read ({why}); {_EXPECTED}.") from error
    except RefusedGlobalError as error:
        raise InputError(
            f"{path} asks for {error.name!r}, which no weight file needs, so it was not read and "
            f"nothing in it was run; {_EXPECTED}: do not open it with torch.load unless you trust "
            "its author."
        ) from error
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read as PyTorch weights: {error}; {_EXPECTED}: save or download it "
            "again."
        ) from error


def _refuse_other_files(path: str | os.PathLike, start: bytes) -> None:
    found = [(what, todo) for magic, what, todo in _OTHER_FILES if start.startswith(magic)]
    if not start:
        found = [("empty", "save or download it again")]
    elif start[8:9] == b"{" and int.from_bytes(start[:8], "little") < 1 << 40:
        found = [("a safetensors file", "read it with read_safetensors")]
    elif start[257:262] == b"ustar":
        found = [("a tar archive", "unpack it, or save it again with torch 0.1.10 or newer")]
    for what, todo in found:
        raise InputError(f"{path} is {what}; {_EXPECTED}: {todo}.")


def _read(archive: ZipArchive | LegacyArchive, file_bytes: int) -> TorchFile:
    weights, beside = _split(archive.root)
    found = dict(_Names().walk(weights))
    if not found:
        raise ValueError("it holds no tensors by name")
    if all(name.startswith("module.") for name in found):  # From `DataParallel`.
        found = {name.removeprefix("module."): tensor for name, tensor in found.items()}
    numbers = {name: x for name, x in beside.items() if isinstance(x, Tensor) and x.shape == ()}
    arrays = _read_tensors(archive, [*found.items(), *numbers.items()], file_bytes)
    tensors, scalars = arrays[: len(found)], arrays[len(found) :]
    beside |= dict(zip(numbers, (scalar.item() for scalar in scalars), strict=True))
    metadata = {name: x for name, x in beside.items() if _is_scalar(x)}
    return TorchFile(dict(zip(found, tensors, strict=True)), metadata)


def _split(root: Any) -> tuple[Any, dict[str, Any]]:
    """Returns the weights, and the other things saved with them, by name."""
    if not isinstance(root, dict):
        return root, {}
    named = {key: value for key, value in root.items() if isinstance(key, str)}
    for key in _WEIGHT_KEYS:
        if isinstance(named.get(key), dict | Instance):
            return named.pop(key), named
    return named, {name: x for name, x in named.items() if not isinstance(x, Tensor)}


def _is_scalar(value: Any) -> bool:
    # Python refuses to print integers of thousands of digits; no checkpoint needs them.
    return isinstance(value, float | str) or (isinstance(value, int) and abs(value) < 1 << 64)


class _Names:
    """Names the tensors as `state_dict` does, up to fixed limits."""

    def __init__(self):
        self._visits = 0
        self._seen: set[str] = set()

    def walk(self, node: Any, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
        """Yields `(name, tensor)` for all tensors in a module or in nested dicts."""
        if depth > _MAX_DEPTH or len(prefix) > _MAX_NAME:
            raise ValueError(f"its modules are nested more than {_MAX_DEPTH} deep")
        for name, value, is_persistent in _children(node):
            self._visits += 1
            if self._visits > _MAX_VISITS:
                raise ValueError(f"it has more than {_MAX_VISITS} modules and tensors")
            if not isinstance(name, str) or not is_persistent:
                continue
            if isinstance(value, Tensor | OtherTensor):
                if prefix + name in self._seen or len(name) > _MAX_NAME:
                    raise ValueError(
                        f"the name {(prefix + name)[:100]!r} occurs twice or is too long"
                    )
                self._seen.add(prefix + name)
                yield prefix + name, value
            elif isinstance(value, dict | Instance):
                yield from self.walk(value, f"{prefix}{name}.", depth + 1)


def _children(node: Any) -> Iterator[tuple[Any, Any, bool]]:
    """Yields `(name, value, is_persistent)` of parameters, buffers and modules, as in torch."""
    if isinstance(node, dict):
        yield from ((name, value, True) for name, value in node.items())
    elif isinstance(node, Instance):
        kinds = {kind: node.state.get(kind) for kind in ("_parameters", "_buffers", "_modules")}
        left_out = node.state.get("_non_persistent_buffers_set") or ()
        for kind, values in kinds.items():
            for name, value in values.items() if isinstance(values, dict) else ():
                yield name, value, kind != "_buffers" or name not in left_out


def _read_tensors(
    archive: ZipArchive | LegacyArchive, named: list[tuple[str, Any]], file_bytes: int
) -> list[np.ndarray]:
    """Returns the arrays in order; only one storage at a time is in memory beside them."""
    views = [_checked(name, tensor) for name, tensor in named]
    needed = sum(math.prod(view.shape) * view.dtype.itemsize for view in views)
    if needed > allowed_bytes(file_bytes):
        raise ValueError(f"it has {file_bytes} bytes and its tensors would need {needed}")
    by_storage: dict[str, list[int]] = {}
    for index, view in enumerate(views):
        by_storage.setdefault(view.storage.key, []).append(index)
    arrays: list[Any] = [None] * len(views)
    for indices in by_storage.values():
        storage = views[indices[0]].storage
        data = archive.read(storage)
        # `_checked` relied on the length that the tensors give.
        if len(data) != storage.whole_numel * storage.dtype.itemsize:
            raise ValueError(f"storage {storage.key[:100]!r} is not as long as the tensors say")
        for index in indices:
            arrays[index] = _copy(data, views[index], archive.is_big_endian)
    return arrays


@dataclass(frozen=True)
class _View:
    """A tensor all of whose elements are known to be inside its storage."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _checked(name: str, tensor: Any) -> _View:
    label = f"tensor {name[:200]!r}"
    if isinstance(tensor, OtherTensor):
        raise ValueError(f"{label} is {tensor.kind}, but only plain dense tensors are read")
    storage, offset, shape = tensor.storage, tensor.offset, tensor.shape
    strides = tensor.strides
    if not isinstance(storage, Storage) or not _are_sizes(shape) or not _are_sizes(strides):
        raise ValueError(f"{label} is damaged")
    if not _are_sizes((offset, storage.start)) or len(shape) != len(strides) or len(shape) > 64:
        raise ValueError(f"{label} is damaged")
    dtype = tensor.dtype or storage.dtype
    storage_bytes, start_bytes = storage.dtype.itemsize, storage.start * storage.dtype.itemsize
    end_bytes = min(storage.start + storage.numel, storage.whole_numel) * storage_bytes
    # The stride of an axis of length 1 has no meaning, and may be too large for numpy.
    strides = tuple(0 if n <= 1 else step for n, step in zip(shape, strides, strict=True))
    # One past the last element, unless the tensor is empty.
    end = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 1
    if 0 in shape:
        strides, offset, end = (0,) * len(shape), 0, 0
    if end and start_bytes + end * dtype.itemsize > end_bytes:
        raise ValueError(f"{label} reaches beyond the end of its storage")
    # Numpy multiplies the lengths of empty arrays, too.
    if start_bytes % dtype.itemsize or math.prod(n or 1 for n in shape) > 1 << 48:
        raise ValueError(f"{label} is damaged")
    return _View(storage, dtype, start_bytes // dtype.itemsize + offset, tuple(shape), strides)


def _are_sizes(numbers: Any) -> bool:
    is_row = isinstance(numbers, tuple | list)
    return is_row and all(isinstance(n, int) and 0 <= n < 1 << 60 for n in numbers)


def _copy(data: bytes, view: _View, is_big_endian: bool) -> np.ndarray:
    dtype = view.dtype
    part_bytes = dtype.itemsize // 2 if dtype.kind == "c" else dtype.itemsize
    usable = len(data) // dtype.itemsize * dtype.itemsize
    # Bytes are swapped as those of integers, because bfloat16 has no byte order.
    order = ">" if is_big_endian else "<"
    elements = np.frombuffer(data[:usable], np.dtype(f"{order}u{part_bytes}"))
    elements = elements.astype(f"=u{part_bytes}", copy=False)
    if dtype == np.bool_:
        elements = elements != 0  # Numpy's booleans must be 0 or 1.
    elements = elements.view(dtype)[view.offset :]
    steps = [step * dtype.itemsize for step in view.strides]
    strided = np.lib.stride_tricks.as_strided(elements, view.shape, steps, writeable=False)
    return np.array(strided, dtype, order="C", copy=True)
