"""What the GPU kernels share: tiles in shared memory, padding, 32-bit index arithmetic."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import jax.experimental.pallas.mosaic_gpu as plgpu
import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    from jax import Array

ROWS = 128  # Pixels of a tile.
RUN = 16  # Wider runs would meet bank conflicts between the copy engine's rows and the registers.

gpu_kernel = partial(
    plgpu.kernel,
    compiler_params=plgpu.CompilerParams(lowering_semantics=plgpu.LoweringSemantics.Warpgroup),
)


def operand(*shape: int, dtype=jnp.bfloat16):
    """Allocates shared memory for an operand of the tensor cores."""
    return plgpu.SMEM(shape, dtype, transforms=tiling(RUN, dtype))


def tiling(columns: int, dtype) -> tuple:
    """Returns the layout that tensor cores want of an operand: swizzled tiles of 8 rows."""
    swizzle = columns * jnp.dtype(dtype).itemsize
    return plgpu.TilingTransform((8, columns)), plgpu.SwizzleTransform(swizzle)


def widths(size: int) -> tuple[int, ...]:
    """Returns the widths of tiles that pad `size` columns as little as possible."""
    return (64,) if -(-size // 64) % 2 else (64, 128)


def as_rows(a: Array) -> Array:
    """Returns [B, H, W, C] as (B·H·W, C), one row per pixel."""
    return a.reshape(-1, a.shape[-1])


def fit(a: Array, rows: int, columns: int) -> Array:
    """Pads `a` with zeros to that size."""
    return jnp.pad(a, ((0, rows - a.shape[0]), (0, columns - a.shape[1])))


def div(a, b: int):
    """Returns a / b rounded toward zero, in 32 bits even with `jax_enable_x64`."""
    return lax.div(a, np.int32(b))


def rem(a, b: int):
    """Returns the remainder of `div`."""
    return lax.rem(a, np.int32(b))


def across(vector, shape: tuple[int, ...]):
    """Repeats a vector (n,) for each row of (rows, n)."""
    return lax.broadcast_in_dim(vector, shape, (1,))
