"""`shift_conv` as Pallas kernels for NVIDIA GPUs from Hopper on: no shifted tensor in memory.

Images are flattened to rows, one per pixel. A shift by (dy, dx) then moves the first row by
`dy * W + dx`, and the copy engine starts at any row. Rows fetched from beyond the edge of their
image become zero on their way through the registers. Channels are fetched in runs of 16, the depth
of one tensor-core instruction, starting at any channel. A run has one offset: its channels with
another offset meet zeros in the other operand.

All functions raise an InputError with the sentence of `unsupported`; their `interpret` is that of
`plgpu.kernel`.
"""

from shift_jax.ops.fused.gpu.dw import weight_gradient
from shift_jax.ops.fused.gpu.dx import input_gradient
from shift_jax.ops.fused.gpu.fwd import forward
from shift_jax.ops.fused.gpu.limits import unsupported

__all__ = ["forward", "input_gradient", "unsupported", "weight_gradient"]
