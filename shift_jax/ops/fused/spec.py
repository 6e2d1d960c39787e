"""What a fused shift and pointwise convolution computes, apart from its arrays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shift_jax.ops.offsets import Offsets

Relu = Literal["none", "before_residual", "last"]


@dataclass(frozen=True)
class Spec:
    """The static half of a `shift_conv`, the same for all of its implementations.

    Attributes:
      offsets: (dy, dx) of each of the C input channels.
      stride: the output has rows and columns 0, s, 2s, …
      prologue_relu: ReLU of the input, after `scale` and `offset`.
      relu: where the epilogue's ReLU is.
      statistics: whether the float32 sum and sum of squares of each output channel are wanted.
    """

    offsets: Offsets
    stride: int = 1
    prologue_relu: bool = False
    relu: Relu = "none"
    statistics: bool = False
