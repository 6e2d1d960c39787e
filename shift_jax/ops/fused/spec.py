"""What a fused shift and pointwise convolution computes, apart from its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shift_jax.ops.offsets import Offsets

Relu = Literal["none", "before_residual", "last"]
Operation = Literal["forward", "input_gradient", "weight_gradient"]
"""The three functions of every backend."""


@dataclass(frozen=True)
class Spec:
    """The static half of a `shift_conv`, the same for every backend.

    Attributes:
      offsets: (dy, dx) of each of the C input channels, in pixels.
      stride: s; the output keeps rows and columns 0, s, 2s, …
      prologue_relu: whether a ReLU follows the prologue's scale and bias.
      relu: where the epilogue applies its ReLU.
      statistics: whether to return the float32 sum and sum of squares of each output channel.
    """

    offsets: Offsets
    stride: int = 1
    prologue_relu: bool = False
    relu: Relu = "none"
    statistics: bool = False
