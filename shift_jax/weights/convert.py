"""From the tensors of other libraries to the variables of our networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
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

Reorder = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Source:
    """How tensors of one origin are named and laid out.

    Attributes:
      name: of the origin, for messages.
      tensor: from one of our modules, such as "group1_block1/conv1", and its leaf, such as
        "kernel", to the tensor's name and what brings it into our layout.
      ignored: matches names of tensors that are of no use here.
    """

    name: str
    tensor: Callable[[str, str], tuple[str, Reorder]]
    ignored: str = ""


def torch_source(layout: Layout) -> Source:
    """Returns the source of PyTorch's tensors.

    Convolution kernels become (kh, kw, in, out), those of linear layers and of pointwise
    convolutions after a shift (in, out).
    """
    flattened = dict(layout.flattened)

    def tensor(module: str, leaf: str) -> tuple[str, Reorder]:
        name = layout.name(module)
        full = f"{name}.{_TORCH_LEAVES[leaf]}"
        return full, lambda array: _from_torch_order(array, leaf, flattened.get(name))

    return Source(layout.source, tensor, layout.ignored)


def keras_vgg_source() -> Source:
    """Returns the source of Keras' tensors of VGG, named as `block1_conv1.kernel`, `fc1.bias`.

    Theirs read BGR pixels; ours, RGB pixels in 0..255 less `KERAS_VGG_MEAN`, are the same numbers
    with the first kernel's input channels reversed.
    """
    names = {"hidden1": "fc1", "hidden2": "fc2", "classifier": "predictions"}

    def tensor(module: str, leaf: str) -> tuple[str, Reorder]:
        name = names.get(module, module.removesuffix("/conv"))
        if (name, leaf) == ("block1_conv1", "kernel"):
            return f"{name}.{leaf}", lambda array: array[..., ::-1, :]
        return f"{name}.{leaf}", lambda array: array

    return Source("Keras", tensor)


def our_source() -> Source:
    """Returns the source of our own variables, named as `params/group1_block1/conv1/kernel`."""
    kinds = {"mean": "batch_stats", "var": "batch_stats"}

    def tensor(module: str, leaf: str) -> tuple[str, Reorder]:
        return f"{kinds.get(leaf, 'params')}/{module}/{leaf}", lambda array: array

    return Source("shift_jax", tensor)


def to_variables(tensors: Mapping[str, np.ndarray], shapes: Mapping, source: Source) -> dict:
    """Returns variables as nested dicts of float32 arrays.

    Args:
      tensors: by the source's names.
      shapes: the variables to make, anything with a shape as leaves.
      source: of the tensors.

    Raises:
      InputError: a tensor is missing, left over, of another shape or type, or not finite; its name
        is in the message.
    """
    used: dict[str, None] = {}

    def convert(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        name, reorder = source.tensor("/".join(path[1:-1]), path[-1])
        if name not in tensors:
            raise InputError(
                f"The file has no tensor {name!r}, which this network has in {source.name}: name "
                "the model and its arguments that the file is of."
            )
        used[name] = None
        return _checked(name, tensors[name], reorder, shape)

    def build(tree: Mapping, path: tuple[str, ...]) -> dict:
        return {
            key: build(value, (*path, key))
            if isinstance(value, Mapping)
            else convert((*path, key), tuple(value.shape))
            for key, value in tree.items()
        }

    # Parameters first, for messages that a reader understands sooner than running means.
    variables = build({"params": shapes["params"], **shapes}, ())
    extra = [n for n in tensors if n not in used and not re.fullmatch(source.ignored, n)]
    if extra:
        raise InputError(
            f"The file has the tensor {extra[0]!r}, which this network has not"
            f"{f', and {len(extra) - 1} more such' if extra[1:] else ''}: name the model and its "
            "arguments that the file is of."
        )
    return variables


def class_count(tensors: Mapping[str, np.ndarray], shapes: Mapping, source: Source) -> int | None:
    """Returns the classes of a file's classifier, None where it has none.

    Args:
      tensors, source: as for `to_variables`.
      shapes: of the network with a classifier of any width.
    """
    for path, _ in _leaves(shapes["params"]):
        if path[0] == "classifier" and path[-1] == "bias":
            bias = tensors.get(source.tensor("/".join(path[:-1]), "bias")[0])
            return len(bias) if bias is not None and bias.ndim else None
    return None


def image_channels(tensors: Mapping[str, np.ndarray], shapes: Mapping, source: Source) -> int:
    """Returns the channels of the images that a file's network takes.

    Args:
      tensors, source: as for `to_variables`.
      shapes: of the network for RGB images.
    """
    for path, leaf in _leaves(shapes["params"]):
        # Of all kernels, only the first one reads three channels.
        if path[-1] == "kernel" and len(leaf.shape) == 4 and leaf.shape[2] == 3:
            name, reorder = source.tensor("/".join(path[:-1]), "kernel")
            kernel = tensors.get(name)
            return reorder(kernel).shape[2] if kernel is not None and kernel.ndim == 4 else 3
    return 3


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


def _checked(name: str, tensor: np.ndarray, reorder: Reorder, shape: tuple[int, ...]) -> np.ndarray:
    """The tensor in our layout and float32; InputError if it is not what it should be."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise InputError(
            f"Tensor {name!r} is of type {tensor.dtype}, expected floating-point numbers: it is "
            "no trained weight."
        )
    # What is of another rank is refused below, and cannot be reordered.
    array = reorder(tensor) if tensor.ndim in (len(shape), 4) else tensor
    if array.ndim == 4 and len(shape) == 2 and array.shape[:2] == (1, 1):
        array = array[0, 0]  # A pointwise convolution after a shift.
    if array.shape != shape:
        ours = "" if array.shape == tensor.shape else f", which is {array.shape} in our layout"
        raise InputError(
            f"Tensor {name!r} has shape {tensor.shape}{ours}, but the network needs {shape}: name "
            "the model and its arguments that the file is of."
        )
    array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        raise InputError(
            f"Tensor {name!r} has numbers that are not finite: the network was saved after it "
            "had diverged; take an earlier file."
        )
    return array


def _leaves(tree: Mapping, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
