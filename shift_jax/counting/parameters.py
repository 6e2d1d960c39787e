"""The number of trained parameters."""

from __future__ import annotations

import flax.linen as nn
import jax

from shift_jax.counting.tracing import abstract_variables


def count_parameters(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the number of trained parameters: weights, biases, BatchNorm scales and biases.

    Nothing is computed; only shapes are. BatchNorm's running statistics do not count.

    Args:
      model: called as `model(images, train=False)`, or `model(images)` where it takes no `train`.
      image_shape: (height, width, channels).
    """
    variables = abstract_variables(model, image_shape)
    return sum(leaf.size for leaf in jax.tree.leaves(variables.get("params", {})))
