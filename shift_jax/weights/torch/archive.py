"""The two containers of `torch.save`: a zip archive, and before torch 1.6 a sequence of pickles.

Both give the saved object, as the inert values of `globals`, and the bytes of its storages, one at
a time. A `ValueError` says what is wrong with a file.
"""

import io
import struct
import zipfile
import zlib
from typing import Any, BinaryIO

from shift_jax.weights.torch.globals import Storage
from shift_jax.weights.torch.pickle import MAX_PICKLE_BYTES, load_inert

# MAGIC_NUMBER and PROTOCOL_VERSION in PyTorch's source.
_MAGIC, _PROTOCOL_VERSION = 0x1950A86A20F9469CFC6C, 1001
# How many times as long as the file its content may be: in a zip archive, zeros take hardly any
# space, nor do views of one storage. Real weights stay below 2.
_MAX_EXPANSION, _SLACK_BYTES = 16, 16 << 20


def allowed_bytes(file_bytes: int) -> int:
    """Returns how many bytes of memory a file of this size may ask for."""
    return _MAX_EXPANSION * file_bytes + _SLACK_BYTES


class ZipArchive:
    """The files `NAME/data.pkl`, `NAME/byteorder` and `NAME/data/KEY` in a zip archive."""

    def __init__(self, file: BinaryIO, file_bytes: int):
        try:
            self._zip = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, NotImplementedError, OSError, struct.error) as error:
            raise ValueError(f"its zip archive is damaged or ends early: {error}") from error
        self._entries = {entry.filename: entry for entry in self._zip.infolist()}
        declared = sum(entry.file_size for entry in self._entries.values())
        if declared > allowed_bytes(file_bytes):
            raise ValueError(f"it has {file_bytes} bytes and would unpack to {declared}")
        self._name = self._find_name()
        pickle = self._read_entry(f"{self._name}/data.pkl", MAX_PICKLE_BYTES)
        self.root: Any = load_inert(io.BytesIO(pickle))[0]
        byte_order = f"{self._name}/byteorder"  # Written since torch 2.1.
        known = byte_order in self._entries
        self.is_big_endian = known and self._read_entry(byte_order, 16).strip() == b"big"

    def read(self, storage: Storage) -> bytes:
        """Returns the elements of a storage."""
        length = storage.whole_numel * storage.dtype.itemsize
        return self._read_entry(f"{self._name}/data/{storage.key}", length)

    def _find_name(self) -> str:
        pickles = [name for name in self._entries if name.count("/") == 1]
        names = [name.split("/")[0] for name in pickles if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError("it is a zip archive without the 'data.pkl' of torch.save")
        if f"{names[0]}/constants.pkl" in self._entries:
            raise ValueError(
                "it is a program of torch.jit.save (load it with torch.jit.load and save the "
                "state_dict of that)"
            )
        return names[0]

    def _read_entry(self, name: str, most_bytes: int) -> bytes:
        entry = self._entries.get(name)
        if entry is None:
            raise ValueError(f"it has no {name[:100]!r}")
        if entry.file_size > most_bytes:
            raise ValueError(f"{name[:100]!r} has {entry.file_size} bytes, more than {most_bytes}")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{name[:100]!r} is compressed in a way that torch cannot read")
        try:
            # Without the length, `read` would unpack everything before it discards the rest.
            with self._zip.open(entry) as opened:
                return opened.read(entry.file_size)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
            # RuntimeError includes NotImplementedError and encrypted entries.
            raise ValueError(f"{name[:100]!r} in it is damaged: {error}") from error


class LegacyArchive:
    """Pickles of a magic number, the version, the machine, the object and the storage keys.

    After them come, for each key, the number of elements as an int64 and the elements.
    """

    is_big_endian = False

    def __init__(self, file: BinaryIO, file_bytes: int):
        self._file, self._file_bytes = file, file_bytes
        head = io.BytesIO(file.read(min(MAX_PICKLE_BYTES, file_bytes)))
        if load_inert(head)[0] != _MAGIC:
            raise ValueError("it is a pickle, but torch.save did not write it")
        if load_inert(head)[0] != _PROTOCOL_VERSION:
            raise ValueError(f"its version is not {_PROTOCOL_VERSION}")
        machine = load_inert(head)[0]
        if not isinstance(machine, dict) or machine.get("little_endian") is not True:
            raise ValueError("it was not written on a little-endian machine")
        self.root: Any
        self.root, storages = load_inert(head)
        keys = load_inert(head)[0]
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
            raise ValueError("its list of storages is damaged")
        self._starts: dict[str, int] = {}
        position = head.tell()
        for key in keys:
            position = self._locate(key, storages.get(key), position)

    def read(self, storage: Storage) -> bytes:
        """Returns the elements of a storage."""
        if storage.key not in self._starts:
            raise ValueError(f"it has no storage {storage.key[:100]!r}")
        self._file.seek(self._starts[storage.key])
        return self._file.read(storage.whole_numel * storage.dtype.itemsize)

    def _locate(self, key: str, storage: Storage | None, position: int) -> int:
        """Records where the elements of a storage start; returns where they end."""
        self._file.seek(position)
        header = self._file.read(8)
        if len(header) != 8:
            raise ValueError(f"it ends before storage {key[:100]!r}")
        if storage is None or struct.unpack("<q", header) != (storage.whole_numel,):
            raise ValueError(f"storage {key[:100]!r} is not as long as the tensors say")
        self._starts[key] = position + 8
        end = position + 8 + storage.whole_numel * storage.dtype.itemsize
        if end > self._file_bytes:
            raise ValueError(f"it ends within storage {key[:100]!r}")
        return end
