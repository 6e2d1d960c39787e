"""From the tensors of other libraries to the variables of our networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from shift_jax.errors import InputError
from shift_jax.ops import shift_offsets
from shift_jax.weights.torch_names import Layout

_TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
# Of Keras' VGG weights: pixels are BGR in 0..255 less these means (given here as RGB).
KERAS_VGG_MEAN = (123.68, 116.779, 103.939)


def from_torch(tensors: Mapping[str, np.ndarray], shapes: Mapping, layout: Layout) -> dict:
    """Returns variables as nested dicts of float32 arrays.

    Convolution kernels become (kh, kw, in, out), those of linear layers and of pointwise
    convolutions after a shift (in, out).

    Args:
      tensors: by PyTorch's names.
      shapes: the variables to make, anything with a shape as leaves.
      layout: PyTorch's names for our modules.

    Raises:
      InputError: a tensor is missing, left over or of another shape; its name is in the message.
    """
    flattened = dict(layout.flattened)

    def tensor(module: str, leaf: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
        name = layout.name(module)
        full = f"{name}.{_TORCH_LEAVES[leaf]}"
        return full, lambda array: _from_torch_order(array, leaf, flattened.get(name))

    return _convert(tensors, shapes, tensor, layout.ignored, layout.source)


def from_keras_vgg(tensors: Mapping[str, np.ndarray], shapes: Mapping) -> dict:
    """Returns the variables of `vgg16` or `vgg19` from Keras' weights of them.

    Theirs read BGR pixels; ours, RGB pixels in 0..255 less `KERAS_VGG_MEAN`, are the same numbers
    with the first kernel's input channels reversed.

    Args:
      tensors: by names such as `block1_conv1.kernel` and `fc1.bias`.
      shapes: the variables to make, anything with a shape as leaves.

    Raises:
      InputError: as `from_torch`.
    """
    names = {"hidden1": "fc1", "hidden2": "fc2", "classifier": "predictions"}

    def tensor(module: str, leaf: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
        name = names.get(module, module.removesuffix("/conv"))
        is_first = (name, leaf) == ("block1_conv1", "kernel")
        return f"{name}.{leaf}", lambda array: array[:, :, ::-1] if is_first else array

    return _convert(tensors, shapes, tensor, ignored="", source="Keras")


def from_ours(variables: Mapping, shapes: Mapping) -> dict:
    """Returns the variables of a safetensors file after checking that they are the network's.

    Args:
      variables: nested dicts of arrays.
      shapes: the variables to make, anything with a shape as leaves.

    Raises:
      InputError: as `from_torch`.
    """
    flat = {
        f"{kind}/{name}": array for kind, tree in variables.items() for name, array in _flat(tree)
    }
    kinds = {"mean": "batch_stats", "var": "batch_stats"}

    def tensor(module: str, leaf: str) -> tuple[str, Callable[[np.ndarray], np.ndarray]]:
        return f"{kinds.get(leaf, 'params')}/{module}/{leaf}", lambda array: array

    return _convert(flat, shapes, tensor, ignored="", source="shift_jax")


def grouped_from_interleaved(variables: Mapping, kernel_size: int = 3) -> dict:
    """Returns variables whose CSC modules do in "grouped" order what they did in "interleaved".

    Eq. 9: the middle channels of each module are permuted together with the columns of the first
    kernel, the statistics of its norm and the rows of the second kernel, once and for all.

    Args:
      variables: with modules of "conv1", "norm1" and "conv2", of which the second is shifted.
      kernel_size: of the shifts.
    """

    def permuted(tree: Mapping, path: tuple[str, ...]) -> dict:
        if not (isinstance(tree, Mapping) and "norm1" in tree):
            return {
                key: permuted(value, (*path, key)) if isinstance(value, Mapping) else value
                for key, value in tree.items()
            }
        channels = len(next(iter(tree["norm1"].values())))
        order = _to_grouped(channels, kernel_size)
        result = dict(tree)
        result["norm1"] = {key: value[order] for key, value in tree["norm1"].items()}
        if "conv1" in tree:  # Not among the statistics.
            result["conv1"] = {"kernel": tree["conv1"]["kernel"][:, order]}
            result["conv2"] = {"kernel": tree["conv2"]["kernel"][order]}
        return result

    return permuted(variables, ())


def _to_grouped(channels: int, kernel_size: int) -> np.ndarray:
    """For each channel of the grouped order, the interleaved one of the same direction."""
    keys = [shift_offsets(channels, kernel_size, order=o) for o in ("grouped", "interleaved")]
    moved = channels // kernel_size**2 * kernel_size**2
    # Within a direction in the order of channels; the unmoved rest, which is last, stays.
    grouped, interleaved = (np.lexsort((key[:moved, 1], key[:moved, 0])) for key in keys)
    order = np.arange(channels)
    order[grouped] = interleaved
    return order


def _from_torch_order(
    array: np.ndarray, leaf: str, flattened: tuple[int, int, int] | None
) -> np.ndarray:
    if leaf != "kernel":
        return array
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2 and flattened and array.shape[1] == np.prod(flattened):
        # PyTorch flattens maps as (C, H, W), we as (H, W, C).
        array = array.reshape(-1, *flattened).transpose(0, 2, 3, 1).reshape(len(array), -1)
    return array.T


def _flat(tree: Mapping | np.ndarray, prefix: str = "") -> Iterator[tuple[str, np.ndarray]]:
    if not isinstance(tree, Mapping):
        yield prefix.removesuffix("/"), tree
        return
    for key, value in tree.items():
        yield from _flat(value, f"{prefix}{key}/")


def _convert(
    tensors: Mapping[str, np.ndarray],
    shapes: Mapping,
    tensor: Callable[[str, str], tuple[str, Callable[[np.ndarray], np.ndarray]]],
    ignored: str,
    source: str,
) -> dict:
    used: dict[str, Any] = {}

    def leaf(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        name, reorder = tensor("/".join(path[1:-1]), path[-1])
        if name not in tensors:
            raise InputError(
                f"The file has no tensor {name!r}, which this network has in {source}: name the "
                "model and its arguments that the file is of."
            )
        used[name] = None
        array = reorder(tensors[name])
        if array.ndim == 4 and len(shape) == 2 and array.shape[:2] == (1, 1):
            array = array[0, 0]  # A pointwise convolution after a shift.
        if array.shape != shape:
            raise InputError(
                f"Tensor {name!r} has shape {tensors[name].shape}, which is {array.shape} in our "
                f"layout, but the network needs {shape}: name the model and its arguments that "
                "the file is of."
            )
        return np.ascontiguousarray(array, np.float32)

    def build(tree: Mapping, path: tuple[str, ...]) -> dict:
        return {
            key: build(value, (*path, key))
            if isinstance(value, Mapping)
            else leaf((*path, key), tuple(value.shape))
            for key, value in tree.items()
        }

    # Parameters first, for messages that a reader understands sooner than running means.
    variables = build({"params": shapes["params"], **shapes}, ())
    extra = [name for name in tensors if name not in used and not re.fullmatch(ignored, name)]
    if extra:
        raise InputError(
            f"The file has the tensor {extra[0]!r}, which this network has not"
            f"{f', and {len(extra) - 1} more such' if extra[1:] else ''}: name the model and its "
            "arguments that the file is of."
        )
    return variables
