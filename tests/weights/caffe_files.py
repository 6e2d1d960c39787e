"""Writes Caffe's weight files, good ones and others, byte by byte."""

import numpy as np


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def field(number, value, kind=None):
    """A field: an integer as a varint, bytes with their length before them."""
    kind = (0 if isinstance(value, int) else 2) if kind is None else kind
    tag = varint(number << 3 | kind)
    if isinstance(value, int):
        return tag + varint(value)
    return tag + (varint(len(value)) if kind == 2 else b"") + value


def blob(array, dtype="<f4", shape=None):
    array = np.asarray(array)
    dims = b"".join(map(varint, array.shape if shape is None else shape))
    data = np.ascontiguousarray(array, dtype).tobytes()
    return field(7, field(1, dims)) + field(5 if dtype == "<f4" else 8, data)


def layer(name, *blobs, kind="Convolution"):
    message = field(1, name.encode()) + field(2, kind.encode())
    return field(100, message + b"".join(field(7, each) for each in blobs))


def network(blobs, name="net"):
    """A file with blobs by names such as `conv0:0`, in order."""
    layers = {}
    for key, array in blobs.items():
        layers.setdefault(key.rpartition(":")[0], []).append(blob(array))
    return field(1, name.encode()) + b"".join(layer(key, *each) for key, each in layers.items())
