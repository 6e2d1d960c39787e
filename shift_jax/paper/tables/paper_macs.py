"""The authors' own counter of multiply-accumulates, by which Table 5 counts FLOPs."""

from __future__ import annotations

import re
from collections.abc import Mapping

import jax

from shift_jax.counting.tracing import abstract_variables
from shift_jax.errors import InputError
from shift_jax.models.cifar import CifarNet


def paper_cifar_macs(model: CifarNet) -> int:
    """Returns the MACs as the paper counted them in Table 5, for its CIFAR networks only.

    The counter takes every convolution of a block, including the shortcut's, at the block's INPUT
    resolution. The stem and the classifier are constants, 1024·27·64 and 1024·64·4·10.

    Raises:
      InputError: the network is no CIFAR network.
    """
    if not isinstance(model, CifarNet):
        raise InputError(
            f"The paper's counter is a formula for its CIFAR networks, not for "
            f"{type(model).__name__}: use count_macs."
        )
    parameters = abstract_variables(model, (32, 32, 3))["params"]
    kernels = {
        "/".join(key.key for key in path[:-1]): leaf.size
        for path, leaf in jax.tree_util.tree_leaves_with_path(parameters)
        if path[-1].key == "kernel"
    }
    return paper_cifar_formula(kernels)


def paper_cifar_formula(kernels: Mapping[str, int]) -> int:
    """Returns what `paper_cifar_macs` does, from the size of each layer's kernel.

    Args:
      kernels: the number of weights by the layer's path, such as "group1_block1/conv1"; layers
        outside the blocks do not matter.
    """
    total = 1024 * 27 * 64 + 1024 * 64 * 4 * 10
    for path, size in kernels.items():
        block = re.match(r"group(\d)_block(\d+)/", path)
        if block:
            group, index = map(int, block.groups())
            # Group g works at side 32 / 2^(g-1); the input of its first block is twice as large.
            side = 32 >> (group - 1 if index > 1 or group == 1 else group - 2)
            total += size * side**2
    return total
