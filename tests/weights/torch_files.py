"""Writes files as `torch.save` does, of all its versions, without torch.

`pickled` writes opcodes for the marker classes below, with the byte strings of Python 2 or the
text of Python 3; nothing is ever called or imported.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
STORAGES = {"float32": "Float", "float64": "Double", "int64": "Long", "uint8": "Byte"}


@dataclass
class Name:
    module: str
    name: str


@dataclass
class Call:
    function: Any
    args: tuple
    state: Any = None


@dataclass
class New:
    cls: Any
    state: Any


@dataclass
class Persistent:
    pid: tuple


@dataclass
class Raw:
    code: bytes


@dataclass
class Elements:
    """A storage: makes the same persistent id wherever it is used."""

    key: str
    data: np.ndarray
    location: str = "cpu"

    def pid(self, legacy: bool, view=None) -> Persistent:
        module = "torch.cuda" if self.location.startswith("cuda") else "torch"
        cls = Name(module, STORAGES[self.data.dtype.name] + "Storage")
        tail = (view,) if legacy else ()
        return Persistent(("storage", cls, self.key, self.location, self.data.size, *tail))


@dataclass
class File:
    """Collects storages; `tensor` describes tensors in them."""

    legacy: bool = False
    python2: bool = False
    location: str = "cpu"
    storages: list[Elements] = field(default_factory=list)

    def store(self, data: np.ndarray) -> Elements:
        key = str(94012345678 + len(self.storages)) if self.legacy else str(len(self.storages))
        self.storages.append(Elements(key, data, self.location))
        return self.storages[-1]

    def view(self, storage: Elements, offset, shape, strides) -> Call:
        args = (storage.pid(self.legacy), offset, shape, strides)
        if self.python2:  # torch 0.3
            return Call(Name("torch._utils", "_rebuild_tensor"), args)
        hooks = Call(Name("collections", "OrderedDict"), ())
        return Call(Name("torch._utils", "_rebuild_tensor_v2"), (*args, False, hooks))

    def tensor(self, array: np.ndarray) -> Call:
        strides = tuple(step // array.itemsize for step in array.strides)
        return self.view(self.store(array.ravel()), 0, array.shape, strides)

    def parameter(self, array: np.ndarray) -> Call:
        if self.python2:  # A call, and then a state: (requires_grad, volatile, hooks).
            cls = Name("torch.nn.parameter", "Parameter")
            return Call(cls, (self.tensor(array),), (True, False, OrderedDict()))
        args = (self.tensor(array), True, OrderedDict())
        return Call(Name("torch._utils", "_rebuild_parameter"), args)

    def save(self, path, root: Any) -> None:
        (self._save_legacy if self.legacy else self._save_zip)(path, pickled(root, self.python2))

    def _save_legacy(self, path, root: bytes) -> None:
        sizes = {"short": 2, "int": 4, "long": 4}
        system = {"protocol_version": VERSION, "little_endian": True, "type_sizes": sizes}
        parts = [pickled(x, self.python2) for x in (MAGIC, VERSION, system)] + [root]
        parts.append(pickled([storage.key for storage in self.storages], self.python2))
        for storage in self.storages:
            parts += [struct.pack("<q", storage.data.size), storage.data.tobytes()]
        path.write_bytes(b"".join(parts))

    def _save_zip(self, path, root: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", root)
            archive.writestr("archive/byteorder", "little")
            for storage in self.storages:
                archive.writestr(f"archive/data/{storage.key}", storage.data.tobytes())
            archive.writestr("archive/version", "3\n")


def pickled(value: Any, python2: bool = False) -> bytes:
    out = io.BytesIO()
    out.write(b"\x80\x02")
    _emit(out.write, value, python2)
    out.write(b".")
    return out.getvalue()


def _emit(write, value, python2) -> None:
    def emit(*parts):
        for part in parts:
            write(part) if isinstance(part, bytes) else _emit(write, part[0], python2)

    match value:
        case Raw(code):
            write(code)
        case Name(module, name):
            module = {"builtins": "__builtin__"}.get(module, module) if python2 else module
            write(f"c{module}\n{name}\n".encode())
        case Call(function, args, state):
            emit([function], [args], b"R")
            if state is not None:
                emit([state], b"b")
        case New(cls, state):
            emit([cls], b")\x81", [state], b"b")
        case Persistent(pid):
            emit([pid], b"Q")
        case str() if python2:
            text = value.encode("latin1")
            write(b"U" + bytes([len(text)]) + text)
        case OrderedDict() if python2:
            pairs = [list(pair) for pair in value.items()]
            emit([Call(Name("collections", "OrderedDict"), (pairs,))])
        case OrderedDict():
            emit([Call(Name("collections", "OrderedDict"), ())], b"(")
            for key, item in value.items():
                emit([key], [item])
            write(b"u")
        case dict():
            write(b"}(")
            for key, item in value.items():
                emit([key], [item])
            write(b"u")
        case list():
            write(b"](")
            for item in value:
                emit([item])
            write(b"e")
        case tuple():
            write(b"(")
            for item in value:
                emit([item])
            write(b"t")
        case None | bool() | int() | float() | str() | bytes():
            write(pickle.dumps(value, 2)[2:-1])  # Without the protocol and the end.
        case _:
            raise TypeError(type(value))


def module(cls: Name, parameters=(), buffers=(), modules=(), **attributes) -> New:
    """A pickled `torch.nn.Module`."""
    parts = {"_parameters": parameters, "_buffers": buffers, "_modules": modules}
    state = {name: OrderedDict(part) for name, part in parts.items()}
    return New(cls, {"training": True, **state, **attributes})


KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)


def saved(path, tensors=None, **options):
    """Writes a state dict of two tensors."""
    file = File(**options)
    tensors = {"conv.weight": KERNEL, "bn.steps": np.int64([7])} if tensors is None else tensors
    file.save(path, OrderedDict((name, file.tensor(array)) for name, array in tensors.items()))
    return path


def in_zip(path, pickle_bytes, storages=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_bytes)
        for key, data in storages:
            archive.writestr(f"archive/data/{key}", data)
    return path


def assert_same(tensors, expected):
    assert list(tensors) == list(expected)
    for name, array in tensors.items():
        assert array.dtype == expected[name].dtype and array.shape == expected[name].shape
        assert array.flags.c_contiguous and array.flags.owndata and array.flags.writeable
        np.testing.assert_array_equal(array, expected[name])
