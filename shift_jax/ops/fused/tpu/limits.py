"""What the TPU kernels cannot do."""

from __future__ import annotations

import jax.numpy as jnp

from shift_jax.errors import InputError
from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.tpu import strips
from shift_jax.ops.fused.tpu.plan import Problem, make_plan


def unsupported(x_shape, x_dtype, features: int, spec: Spec) -> str | None:
    """Returns one sentence why the kernels cannot do this, or None."""
    dtype = jnp.dtype(x_dtype)
    if dtype not in (jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)):
        return (
            f"implementation 'pallas_tpu' takes bfloat16 and float32, not {dtype.name}: use None "
            "or 'xla'."
        )
    batch, height, width, channels = x_shape
    while True:
        problem = Problem.of(height, width, spec.offsets, spec.stride)
        if make_plan(batch, problem, features, dtype.itemsize, wide_buffers=4):
            return None
        half = strips.halved(width, spec)
        if half == width:
            return (
                f"implementation 'pallas_tpu' keeps rows of {width} pixels with {channels} and "
                f"{features} channels on the chip, which are too many: use None or 'xla'."
            )
        width = half


def check(x_shape, dtype, features: int, spec: Spec) -> None:
    """Raises InputError with the sentence of `unsupported`, if there is one."""
    reason = unsupported(x_shape, dtype, features, spec)
    if reason:
        raise InputError(reason)
