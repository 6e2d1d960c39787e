"""`shift_conv` as Pallas kernels for NVIDIA GPUs from Hopper on: no shifted tensor in memory.

Images are flattened to rows, one per pixel. A shift by (dy, dx) is then a start `dy * W + dx` rows
away, which the copy engine takes as it takes any, and what a row fetched from beyond the edge of
its image is set to zero on its way through the registers. Channels are fetched in runs of 16, the
depth of one tensor-core instruction, from any first channel on. A run has one offset: its channels
that have another meet zeros in the other operand.
"""

from shift_jax.ops.fused.gpu.dw import weight_gradient
from shift_jax.ops.fused.gpu.dx import input_gradient
from shift_jax.ops.fused.gpu.fwd import forward
from shift_jax.ops.fused.gpu.limits import unsupported

__all__ = ["forward", "input_gradient", "unsupported", "weight_gradient"]
