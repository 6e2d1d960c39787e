"""Initial values of kernels and biases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer = Callable[..., Any]

he_init: Initializer = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
"""He et al. 2015: normal, with variance 2 / fan_in."""

pytorch_init: Initializer = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default for convolutions and linear layers: uniform within ±1/√fan_in."""


def pytorch_bias_init(fan_in: int) -> Initializer:
    """Returns PyTorch's default for biases: uniform within ±1/√fan_in of the layer's kernel."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def bias_init_for(kernel_init: Initializer, fan_in: int) -> Initializer:
    """Returns the bias initializer that goes with a kernel's: PyTorch's or zeros."""
    if kernel_init is pytorch_init:
        return pytorch_bias_init(fan_in)
    return nn.initializers.zeros_init()
