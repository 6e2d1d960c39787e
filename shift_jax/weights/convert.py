"""Converts the tensors of other libraries to the variables of our networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict

from shift_jax.errors import InputError

Reorder = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class TensorLayout:
    """Names and layouts of the tensors of one origin.

    Attributes:
      name: of the origin, for messages.
      tensor: maps the path of one of our modules, such as "group1_block1/conv1", and its leaf,
        such as "kernel", to the name of the tensor and a function that reorders it to our layout.
      ignored: regular expression for the names of tensors that our networks do not need.
      mean, std: of the channels of pixels in 0..1 that networks of this origin read; None where
        they are those of our network's record.
      prepare: makes the tensors with those names from the ones in a file.
    """

    name: str
    tensor: Callable[[str, str], tuple[str, Reorder]]
    ignored: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    prepare: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] = dict


def our_layout() -> TensorLayout:
    """Returns the layout of our own variables, named as `params/group1_block1/conv1/kernel`."""
    kinds = {"mean": "batch_stats", "var": "batch_stats"}

    def tensor(module: str, leaf: str) -> tuple[str, Reorder]:
        return f"{kinds.get(leaf, 'params')}/{module}/{leaf}", lambda array: array

    return TensorLayout("shift_jax", tensor)


def flat(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the leaves of nested variables by paths such as `params/stem/conv/kernel`."""
    return cast("dict[str, Any]", flatten_dict(variables, sep="/"))


class MisfitError(InputError):
    """The tensors are of another network, or of this one with other arguments.

    Attributes:
      difference: the first tensor that differs, and how.
    """

    def __init__(self, difference: str):
        self.difference = difference
        super().__init__(
            f"{difference[0].upper()}{difference[1:]}: give the model and the arguments that the "
            "file was trained with."
        )


def without_shared_prefixes(
    tensors: Mapping[str, np.ndarray], expected: Collection[str]
) -> dict[str, np.ndarray]:
    """Returns the tensors without the prefixes that wrappers gave to all of their names.

    `DataParallel` prepends `module.`, `torch.compile` prepends `_orig_mod.`, and Lightning prepends
    the attribute that holds the network. Wrappers may be nested.

    Args:
      tensors: by their names in the file.
      expected: names of the network's tensors; once one of them appears, no prefix is left.
    """
    tensors = dict(tensors)
    while tensors and not any(name in tensors for name in expected):
        prefix = next(iter(tensors)).partition(".")[0] + "."
        if not all(name.startswith(prefix) for name in tensors):
            break
        tensors = {name.removeprefix(prefix): array for name, array in tensors.items()}
    return tensors


def to_variables(tensors: Mapping[str, np.ndarray], shapes: Mapping, layout: TensorLayout) -> dict:
    """Returns variables as nested dicts of float32 arrays.

    Args:
      tensors: by the layout's names.
      shapes: the variables to return, with anything that has a shape as leaves.
      layout: of the tensors.

    Raises:
      MisfitError: a tensor is missing, left over, or of another shape; its name is in the message.
      InputError: a tensor is of another type or not finite; likewise.
    """
    used: dict[str, None] = {}

    def convert(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        name, reorder = layout.tensor("/".join(path[1:-1]), path[-1])
        if name not in tensors:
            raise MisfitError(
                f"the file has no tensor {name!r}, which the network has in {layout.name}"
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

    # Parameters first: a message about a kernel says more than one about a running mean.
    variables = build({"params": shapes["params"], **shapes}, ())
    extra = [n for n in tensors if n not in used and not re.fullmatch(layout.ignored, n)]
    if extra:
        more = f", and {len(extra) - 1} more such tensors" if extra[1:] else ""
        raise MisfitError(
            f"the file has the tensor {extra[0]!r}, which the network does not have{more}"
        )
    return variables


def expected_tensors(
    shapes: Mapping, layout: TensorLayout
) -> Iterator[tuple[str, Reorder, tuple[int, ...]]]:
    """Yields the name of each tensor of a network, and the other arguments of `fits`.

    Args:
      shapes, layout: as for `to_variables`.
    """
    for path, leaf in _leaves(shapes):
        yield *layout.tensor("/".join(path[1:-1]), path[-1]), tuple(leaf.shape)


def fits(tensor: np.ndarray, reorder: Reorder, shape: tuple[int, ...]) -> bool:
    """Whether a tensor has the shape of our variable after it is reordered."""
    return _in_our_layout(tensor, reorder, shape).shape == shape


def class_count(
    tensors: Mapping[str, np.ndarray], shapes: Mapping, layout: TensorLayout
) -> int | None:
    """Returns the number of classes of a file's classifier, None if it has none.

    Args:
      tensors, layout: as for `to_variables`.
      shapes: of the network with a classifier of any width.
    """
    for path, _ in _leaves(shapes["params"]):
        if path[0] == "classifier" and path[-1] == "bias":
            bias = tensors.get(layout.tensor("/".join(path[:-1]), "bias")[0])
            return len(bias) if bias is not None and bias.ndim else None
    return None


def image_channels(tensors: Mapping[str, np.ndarray], shapes: Mapping, layout: TensorLayout) -> int:
    """Returns the number of channels of the images that a file's network reads.

    Args:
      tensors, layout: as for `to_variables`.
      shapes: of the network for RGB images.
    """
    for path, leaf in _leaves(shapes["params"]):
        # Only the first kernel reads three channels.
        if path[-1] == "kernel" and len(leaf.shape) == 4 and leaf.shape[2] == 3:
            name, reorder = layout.tensor("/".join(path[:-1]), "kernel")
            kernel = tensors.get(name)
            return reorder(kernel).shape[2] if kernel is not None and kernel.ndim == 4 else 3
    return 3


def _in_our_layout(tensor: np.ndarray, reorder: Reorder, shape: tuple[int, ...]) -> np.ndarray:
    # A tensor of another rank does not fit, and cannot be reordered.
    array = reorder(tensor) if tensor.ndim in (len(shape), 4) else tensor
    if array.ndim == 4 and len(shape) == 2 and array.shape[:2] == (1, 1):
        array = array[0, 0]  # A pointwise convolution after a shift.
    return array


def _checked(name: str, tensor: np.ndarray, reorder: Reorder, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the tensor in our layout as float32; raises InputError if it is not as expected."""
    if not jnp.issubdtype(tensor.dtype, jnp.floating):
        raise InputError(
            f"Tensor {name!r} is of type {tensor.dtype}, expected floating-point numbers: give a "
            "file of trained weights."
        )
    array = _in_our_layout(tensor, reorder, shape)
    if array.shape != shape:
        ours = "" if array.shape == tensor.shape else f", which is {array.shape} in our layout"
        raise MisfitError(
            f"tensor {name!r} has shape {tensor.shape}{ours}, but the network needs {shape}"
        )
    array = np.ascontiguousarray(array, np.float32)
    if not np.isfinite(array).all():
        raise InputError(
            f"Tensor {name!r} has numbers that are not finite: the network had diverged before it "
            "was saved; take an earlier file."
        )
    return array


def _leaves(tree: Mapping, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, (*path, key))
        else:
            yield (*path, key), value
