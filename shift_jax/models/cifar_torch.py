"""PyTorch layout of the CIFAR networks: the authors' code, based on Kuang Liu's pytorch-cifar."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from shift_jax.models.residual_blocks import torch_block_names
from shift_jax.ops import shift_offsets
from shift_jax.weights.torch.layout import TorchLayout

_OUTSIDE = {"stem": "conv1", "stem_norm": "bn1", "classifier": "linear"}
_INSIDE = {"conv_shortcut": "shortcut.0", "norm_shortcut": "shortcut.1"}
_DEPTHWISE = {"depthwise": "depth", "depthwise_norm": "bn2", "conv2": "conv3", "norm2": "bn3"}


def resnet_layout(arguments: Mapping[str, Any]) -> TorchLayout:
    """Returns the layout of the ResNets, reduced or not."""
    return _layout(_INSIDE)


def depthwise_layout(arguments: Mapping[str, Any]) -> TorchLayout:
    """Returns the layout of the DepthwiseResNets."""
    return _layout(_INSIDE | _DEPTHWISE)


def shift_layout(arguments: Mapping[str, Any]) -> TorchLayout:
    """Returns the layout of the ShiftResNets."""
    if arguments.get("module", "csc") != "csc":
        # The first shift of SC² reads a sum of several layers, whose channels cannot be permuted.
        return _layout(_INSIDE)
    kernel_size = arguments.get("kernel_size", 3)
    return _layout(_INSIDE, to_grouped=partial(grouped_from_interleaved, kernel_size=kernel_size))


def grouped_from_interleaved(variables: Mapping, kernel_size: int = 3) -> dict:
    """Returns variables that compute with "grouped" shifts what these did with "interleaved" ones.

    Eq. 9: permuting the middle channels of a CSC module permutes the columns of its first kernel,
    the statistics of its first norm, and the rows of its second kernel.

    Args:
      variables: nested dicts; a CSC module is a dict with "conv1", "norm1" and "conv2".
      kernel_size: of the shifts.
    """

    def permuted(tree: Mapping) -> dict:
        if "norm1" not in tree:
            return {
                key: permuted(value) if isinstance(value, Mapping) else value
                for key, value in tree.items()
            }
        channels = len(next(iter(tree["norm1"].values())))
        order = _to_grouped(channels, kernel_size)
        result = dict(tree)
        result["norm1"] = {key: value[order] for key, value in tree["norm1"].items()}
        if "conv1" in tree:  # Statistics have norms only.
            result["conv1"] = {"kernel": tree["conv1"]["kernel"][:, order]}
            result["conv2"] = {"kernel": tree["conv2"]["kernel"][order]}
        return result

    return permuted(variables)


def _to_grouped(channels: int, kernel_size: int) -> np.ndarray:
    """For each channel of the grouped order, the interleaved channel of the same direction."""
    keys = [shift_offsets(channels, kernel_size, order=o) for o in ("grouped", "interleaved")]
    moved = channels // kernel_size**2 * kernel_size**2
    # Channels of one direction keep their order; the unmoved rest is last and stays in place.
    grouped, interleaved = (np.lexsort((key[:moved, 1], key[:moved, 0])) for key in keys)
    order = np.arange(channels)
    order[grouped] = interleaved
    return order


def _layout(inside: Mapping[str, str], **fields) -> TorchLayout:
    return TorchLayout("the authors' CIFAR code", torch_block_names(_OUTSIDE, inside), **fields)
