"""Names and layouts of a network's weights in a PyTorch implementation."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shift_jax.weights.convert import Reorder, TensorLayout

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


def path_parts(pattern: str, path: str) -> tuple[str, ...]:
    """Returns what the groups of `pattern` match in `path`, all of which it must match."""
    match = re.fullmatch(pattern, path)
    assert match is not None, path
    return match.groups()


@dataclass(frozen=True)
class TorchLayout:
    """The names and layouts of a network's weights in a PyTorch implementation.

    Attributes:
      implementation: name of the implementation, for messages.
      name: maps the path of one of our modules, such as `group1_block1/norm1`, to the name of the
        PyTorch module, such as `layer1.0.bn1`.
      flattened: PyTorch names of the linear layers that read a flattened map, each with the (C, H,
        W) of that map.
      ignored: regular expression for the names of tensors that our network does not need.
      to_grouped: maps variables trained with interleaved shifts to variables that compute the same
        with grouped shifts; None where no permutation of the weights can.
    """

    implementation: str
    name: Callable[[str], str]
    flattened: tuple[tuple[str, tuple[int, int, int]], ...] = ()
    ignored: str = r".*\.num_batches_tracked"
    to_grouped: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None

    def tensor_layout(self) -> TensorLayout:
        """Returns how `to_variables` finds and converts the tensors.

        Kernels of convolutions become (kh, kw, in, out); those of linear layers, and of pointwise
        convolutions that follow a shift, (in, out).
        """
        flattened = dict(self.flattened)

        def tensor(module: str, leaf: str) -> tuple[str, Reorder]:
            name = self.name(module)
            shape = flattened.get(name)
            return f"{name}.{_LEAVES[leaf]}", lambda array: _to_ours(array, leaf, shape)

        return TensorLayout(self.implementation, tensor, self.ignored)


def _to_ours(array: np.ndarray, leaf: str, flattened: tuple[int, int, int] | None) -> np.ndarray:
    if leaf != "kernel":
        return array
    if array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    if array.ndim == 2 and flattened and array.shape[1] == np.prod(flattened):
        # PyTorch flattens a map as (C, H, W), this package as (H, W, C).
        array = array.reshape(-1, *flattened).transpose(0, 2, 3, 1).reshape(len(array), -1)
    return array.T
