"""`shift_conv` as Pallas kernels for TPUs: the shifted tensor exists only on the chip.

Arrays are [H, W, B, C] inside, so that a register holds sixteen images' channels of one pixel
(eight in float32) and every shift is an address. `docs/kernels.md` has the whole story.
"""

from shift_jax.ops.fused.tpu.dw import weight_gradient
from shift_jax.ops.fused.tpu.dx import input_gradient
from shift_jax.ops.fused.tpu.fwd import forward
from shift_jax.ops.fused.tpu.limits import unsupported

__all__ = ["forward", "input_gradient", "unsupported", "weight_gradient"]
