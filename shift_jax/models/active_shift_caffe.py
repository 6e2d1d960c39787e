"""Layout of AS-ResNet's weights in its authors' Caffe files (github.com/jyh2986/Active-Shift)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from shift_jax.weights.convert import MisfitError, Reorder, TensorLayout

# Those of the authors' prototxt, there for the channels B, G, R of pixels in 0..255.
MEAN = (123.68 / 255, 116.78 / 255, 103.94 / 255)
"""Mean of the channels of the authors' images, for RGB pixels in 0..1."""
STD = (1 / (255 * 0.01735),) * 3
"""What the authors divided the channels by, likewise."""
_EPSILON = 1e-5  # Caffe's default.

_OUTSIDE = {"stem": "conv0", "norm": "scale/bnlast", "classifier": "fc/linear"}
_INSIDE = {"norm1": "scale{}", "conv1": "conv{}/1", "norm2": "scale{}/1", "conv2": "conv{}/3"}
_BLOBS = {"kernel": 0, "scale": 0, "bias": 1, "mean": 0, "var": 1}


def caffe_layout(arguments: Mapping[str, Any]) -> TensorLayout:
    """Returns the layout; the arguments of the network do not change it."""
    return TensorLayout(
        "the authors' Caffe code",
        _tensor,
        mean=MEAN,
        std=STD,
        prepare=_prepared,
    )


def _tensor(module: str, leaf: str) -> tuple[str, Reorder]:
    if leaf == "offsets":
        return f"shift{_number(module)}/2:offsets", lambda array: array
    name = _name(module)
    if leaf in ("mean", "var"):
        name = name.replace("scale", "bn", 1)
    blob = f"{name}:{_BLOBS[leaf]}"
    if leaf != "kernel":
        return blob, lambda array: array
    if module == "stem":  # Reads B, G, R there and R, G, B here.
        return blob, lambda array: array.transpose(2, 3, 1, 0)[:, :, ::-1]
    return blob, lambda array: array.T if array.ndim == 2 else array.transpose(2, 3, 1, 0)


def _name(module: str) -> str:
    """The name of the layer in Caffe with the weights of one of our modules."""
    if module in _OUTSIDE:
        return _OUTSIDE[module]
    number, inside = _number(module), module.partition("/")[2]
    if inside == "conv_shortcut":
        return f"conv/shortcut{number.partition('_')[0]}"
    return _INSIDE[inside].format(number)


def _number(module: str) -> str:
    """The number in Caffe's names of a block, 0_0 for the one before the first group."""
    match = re.match(r"group(\d+)_block(\d+)/", module)
    assert match is not None, module
    group, block = match.groups()
    return "0_0" if group == "0" else f"{group}_{block}"


def _prepared(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Joins the blobs of each shift, and separates what the authors folded together.

    The scales in the files contain the normalization by BatchNorm's moments, so that inference can
    leave those out. In training, a network with these scales and a BatchNorm before them would
    normalize twice. The moments are sums; the third blob is what to divide them by.
    """
    result = dict(tensors)
    for name in tensors:
        layer, _, index = name.rpartition(":")
        if index != "0":
            continue
        if layer.startswith("shift") and f"{layer}:1" in tensors:
            dx, dy = result.pop(name), result.pop(f"{layer}:1")
            _check_alike({name: dx, f"{layer}:1": dy})
            result[f"{layer}:offsets"] = np.stack([dy.ravel(), dx.ravel()], axis=-1)
        if layer.startswith("scale"):
            norm = layer.replace("scale", "bn", 1)
            names = (name, f"{layer}:1", f"{norm}:0", f"{norm}:1")
            for needed in (*names, f"{norm}:2"):
                if needed not in tensors:
                    raise MisfitError(f"the file has {name!r}, but no tensor {needed!r}")
            _check_alike({n: tensors[n] for n in names})
            count = result.pop(f"{norm}:2")
            if count.size != 1:
                raise MisfitError(f"tensor '{norm}:2' has shape {count.shape}, not one number")
            folded, bias, mean, variance = (tensors[n] for n in names)
            with np.errstate(all="ignore"):  # Numbers that are not finite are refused later.
                mean, variance = mean / count.item(), variance / count.item()
                result[name] = folded * np.sqrt(variance + _EPSILON)
                result[f"{layer}:1"] = bias + folded * mean
            result[f"{norm}:0"], result[f"{norm}:1"] = mean, variance
    return result


def _check_alike(tensors: Mapping[str, np.ndarray]) -> None:
    (first, shape), *others = ((name, array.shape) for name, array in tensors.items())
    for name, other in others:
        if other != shape:
            raise MisfitError(
                f"tensor {name!r} has shape {other}, and {first!r}, which belongs to it, {shape}"
            )
