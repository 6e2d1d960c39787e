"""`shift_conv` as Pallas kernels for TPUs: the shifted tensor exists only on the chip.

Inside, arrays are [H, W, B, C]. A register then holds one pixel of sixteen images (eight in
float32), and every shift is an address. `docs/kernels.md` explains the kernels.
"""

from shift_jax.ops.fused.tpu.dw import weight_gradient
from shift_jax.ops.fused.tpu.dx import input_gradient
from shift_jax.ops.fused.tpu.fwd import forward
from shift_jax.ops.fused.tpu.limits import unsupported

__all__ = ["forward", "input_gradient", "unsupported", "weight_gradient"]
