"""Flax layers built on the shift operation: `Shift`, `ActiveShift`, `CSC` and more.

    from shift_jax.layers import CSC

    x = CSC(features=64, expansion=3)(x, train=train)

All of them take and return images [..., H, W, C].
"""

from shift_jax.layers.csc import CSC, SC2, Shortcut
from shift_jax.layers.expansion import middle_channels
from shift_jax.layers.initializers import (
    Initializer,
    bias_init_for,
    he_init,
    pytorch_bias_init,
    pytorch_init,
)
from shift_jax.layers.learned_shift import (
    ActiveShift,
    OffsetsInit,
    ShiftKind,
    SparseShift,
    check_offsets_init,
    check_shift,
)
from shift_jax.layers.norm import BatchNorm, NormFactory, batch_norm
from shift_jax.layers.shift_conv import Shift, ShiftConv

__all__ = [
    "CSC",
    "SC2",
    "ActiveShift",
    "BatchNorm",
    "Initializer",
    "NormFactory",
    "OffsetsInit",
    "Shift",
    "ShiftConv",
    "ShiftKind",
    "Shortcut",
    "SparseShift",
    "batch_norm",
    "bias_init_for",
    "check_offsets_init",
    "check_shift",
    "he_init",
    "middle_channels",
    "pytorch_bias_init",
    "pytorch_init",
]
