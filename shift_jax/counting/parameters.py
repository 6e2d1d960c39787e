"""The number of trained parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax

from shift_jax.counting.tracing import abstract_variables
from shift_jax.errors import InputError


def count_parameters(
    network: nn.Module | Mapping[str, Any], image_shape: tuple[int, int, int] | None = None
) -> int:
    """Returns the number of trained parameters: weights, biases, BatchNorm scales and biases.

    BatchNorm's running statistics do not count. Counting a module computes shapes only.

        >>> from shift_jax import count_parameters, create_model
        >>> count_parameters(create_model("shiftresnet20"), (32, 32, 3))
        34906

    Args:
      network: a linen network, called as `network(images, train=False)`, or `network(images)` if it
        takes no `train`; or its variables, nested mappings with the collection "params", as arrays
        or as their shapes.
      image_shape: (height, width, channels) of a network's images; variables need none.

    Raises:
      InputError: a network without image_shape.
    """
    if isinstance(network, nn.Module):
        if image_shape is None:
            raise InputError(
                f"count_parameters needs the image_shape of a {type(network).__name__}: give "
                "(height, width, channels), or the network's variables in place of the network."
            )
        network = abstract_variables(network, image_shape)
    return sum(leaf.size for leaf in jax.tree.leaves(network.get("params", {})))
