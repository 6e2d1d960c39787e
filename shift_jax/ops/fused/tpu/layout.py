"""How arrays lie in the TPU kernels: [H, W, B, C], padded to whole blocks."""

from __future__ import annotations

from math import prod

import jax.numpy as jnp

from shift_jax.ops.fused.tpu.plan import Plan


def to_wide(x, plan: Plan):
    """[B, H, W, C] as [H, W / s, s, B, C], padded to whole blocks."""
    problem = plan.problem
    x = _to_hwbc(x, plan.batch, problem.height, problem.width)
    return x.reshape(plan.wide_shape(x.shape[-1]))


def to_narrow(x, plan: Plan):
    """[B, H / s, W / s, N] as [H / s, W / s, B, N], padded to whole blocks."""
    return _to_hwbc(x, plan.batch, plan.problem.out_height, plan.problem.out_width)


def _to_hwbc(x, batch: int, height: int, width: int):
    missing = [(0, n - have) for n, have in zip((batch, height, width), x.shape[:3], strict=True)]
    if any(more for _, more in missing):
        x = jnp.pad(x, [*missing, (0, 0)])
    return x.transpose(1, 2, 0, 3)


def from_hwbc(x, batch: int, height: int, width: int):
    """[H, W, B, C] as [batch, height, width, C], without the padding."""
    return x.transpose(2, 0, 1, 3)[:batch, :height, :width]


def as_row(vector):
    """A vector (n,) as float32 (1, n), which is what registers hold; None stays None."""
    return None if vector is None else vector.astype(jnp.float32)[None]


def product_flops(plan: Plan, channels: int, features: int) -> int:
    """Returns the operations of the product with w, over all pixels of the strided side."""
    return 2 * prod(plan.narrow_shape(features)) * channels
