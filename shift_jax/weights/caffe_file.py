"""Reads Caffe's weight files (`.caffemodel`), protocol buffers, without Caffe or protobuf.

The reader knows the few fields that hold weights, three messages deep, and skips all others by
their lengths, so that no nesting and no number in a file makes it recurse or allocate more than the
file has. The fields are those of `caffe.proto`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from shift_jax.errors import InputError

_EXPECTED = "expected a .caffemodel of Caffe's current format, as `caffe train` writes it"
# Wire types.
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
# NetParameter, LayerParameter, BlobProto and BlobShape.
_NET_NAME, _OLD_LAYERS, _LAYER = 1, 2, 100
_LAYER_NAME, _BLOBS = 1, 7
_LEGACY_SHAPE, _DATA, _SHAPE, _DOUBLE_DATA = (1, 2, 3, 4), 5, 7, 8
_DIM = 1
# Far above any real network; each field takes a microsecond or two.
_MAX_FIELDS, _MAX_NAME, _MAX_DIMENSIONS = 200_000, 1000, 32


def is_caffe(start: bytes) -> bool:
    """Whether the first bytes of a file begin the message of a network with its name or a layer."""
    if start.startswith(b"\xa2\x06"):
        return True
    # Field 1, a name of fewer than 128 bytes, and after it the tag of a field of the network.
    if len(start) < 4 or start[0] != 0x0A or start[1] >= 0x80:
        return False
    rest = start[2 + start[1] :]
    return rest[:1] in (b"\x12", b"\x1a", b"\x20", b"\x28", b"\x32", b"\x38", b"\x42") or (
        rest[:2] == b"\xa2\x06"
    )


def read_caffe(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the weights of a `.caffemodel`.

    Returns:
      The blobs of all layers in the order of the file, by `LAYER:0`, `LAYER:1` and so on, such as
      `conv0:0`: float32, or float64 where the file has doubles, in Caffe's layout (kernels [output,
      input, height, width]).

    Raises:
      InputError: the file cannot be read, is damaged, has another format or holds no weights.
    """
    try:
        content = memoryview(Path(path).read_bytes())
        blobs = _Reader().network(content)
        if not blobs:
            raise ValueError("it holds no weights")
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError(f"{path} cannot be read ({why}); {_EXPECTED}.") from error
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read as Caffe's weights: {error}; {_EXPECTED}: save or download it "
            "again."
        ) from error
    return blobs


class _Reader:
    """Reads one file and counts the fields."""

    def __init__(self):
        self._fields = 0

    def network(self, message: memoryview) -> dict[str, np.ndarray]:
        blobs: dict[str, np.ndarray] = {}
        for field, value in self._walk(message):
            if field == _OLD_LAYERS and isinstance(value, memoryview):
                raise ValueError(
                    "its layers are those of Caffe before 2014; convert it with "
                    "upgrade_net_proto_binary"
                )
            if field == _LAYER:
                name, of_layer = self._layer(_message(value, "a layer"))
                for index, blob in enumerate(of_layer):
                    if f"{name}:{index}" in blobs:
                        raise ValueError(f"it has the layer {name[:100]!r} twice")
                    blobs[f"{name}:{index}"] = blob
        return blobs

    def _layer(self, message: memoryview) -> tuple[str, list[np.ndarray]]:
        name, blobs = "", []
        for field, value in self._walk(message):
            if field == _LAYER_NAME:
                value = _message(value, "the name of a layer")
                if len(value) > _MAX_NAME:
                    raise ValueError(f"a layer has a name of {len(value)} bytes")
                name = bytes(value).decode("utf-8")  # Its error is a ValueError.
            elif field == _BLOBS:
                blobs.append(self._blob(_message(value, "a blob"), f"layer {name[:100]!r}"))
        return name, blobs

    def _blob(self, message: memoryview, layer: str) -> np.ndarray:
        shape: list[int] | None = None
        legacy = [1, 1, 1, 1]
        parts, dtypes = [], set()
        for field, value in self._walk(message):
            if field == _SHAPE:
                shape = self._shape(_message(value, "a shape"), layer)
            elif field in _LEGACY_SHAPE and isinstance(value, int):
                legacy[field - 1] = value
                shape = shape or legacy
            elif field in (_DATA, _DOUBLE_DATA):
                parts.append(_message(value, f"the data of {layer}"))
                dtypes.add("<f4" if field == _DATA else "<f8")
        if shape is None or len(dtypes) != 1:
            raise ValueError(f"a blob of {layer} has no shape, or no numbers, or two kinds of them")
        dtype = np.dtype(dtypes.pop())
        length = sum(map(len, parts))
        # Numbers of any size: Python's integers do not overflow.
        if math.prod(shape) * dtype.itemsize != length:
            raise ValueError(f"a blob of {layer} has {length} bytes, and the shape {shape}")
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        return np.frombuffer(data, dtype).astype(dtype.newbyteorder("=")).reshape(shape)

    def _shape(self, message: memoryview, layer: str) -> list[int]:
        shape = []
        for field, value in self._walk(message):
            if field != _DIM:
                continue
            # One number, or several in a row.
            sizes = [value] if isinstance(value, int) else _varints(value)
            for size in sizes:
                shape.append(size)
                if len(shape) > _MAX_DIMENSIONS:
                    raise ValueError(
                        f"a blob of {layer} has more than {_MAX_DIMENSIONS} dimensions"
                    )
        return shape

    def _walk(self, message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
        """Yields the number of each field and its value: an integer, or the bytes of any other."""
        at = 0
        while at < len(message):
            self._fields += 1
            if self._fields > _MAX_FIELDS:
                raise ValueError(f"it has more than {_MAX_FIELDS:,} fields")
            tag, at = _varint(message, at)
            field, kind = tag >> 3, tag & 7
            if kind == _VARINT:
                value, at = _varint(message, at)
                yield field, value
                continue
            if kind == _BYTES:
                length, at = _varint(message, at)
            elif kind in (_FIXED32, _FIXED64):
                length = 4 if kind == _FIXED32 else 8
            else:
                raise ValueError(f"it has a field of the unknown kind {kind}")
            if not field or length > len(message) - at:
                raise ValueError("it ends early, or is no protocol buffer")
            yield field, message[at : at + length]
            at += length


def _message(value: int | memoryview, what: str) -> memoryview:
    if isinstance(value, int):
        raise ValueError(f"{what} is a number")
    return value


def _varints(message: memoryview) -> Iterator[int]:
    at = 0
    while at < len(message):
        value, at = _varint(message, at)
        yield value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Returns the integer that begins at a position, seven bits a byte, and where it ends."""
    value = 0
    for index, byte in enumerate(message[at : at + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise ValueError("it ends early, or is no protocol buffer")
