"""Pure functions on arrays: the shift operation and its fusion with a pointwise convolution."""

from shift_jax.ops.active_shift import active_shift, sparse_shift
from shift_jax.ops.fused.api import (
    Implementation,
    batch_axes,
    chosen_implementation,
    implementation,
    shift_conv,
)
from shift_jax.ops.offsets import Order, allocate_offsets, shift_offsets
from shift_jax.ops.shift import shift

__all__ = [
    "Implementation",
    "Order",
    "active_shift",
    "allocate_offsets",
    "batch_axes",
    "chosen_implementation",
    "implementation",
    "shift",
    "shift_conv",
    "shift_offsets",
    "sparse_shift",
]
