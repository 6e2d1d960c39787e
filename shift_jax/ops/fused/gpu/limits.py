"""What the GPU kernels cannot do."""

from __future__ import annotations

from math import prod

import jax.numpy as jnp

from shift_jax.errors import InputError
from shift_jax.ops.fused.spec import Spec

_MAX_PIXELS = 2**30  # Pixel numbers, shifted by at most one image, are 32-bit.


def unsupported(x_shape, x_dtype, features: int, spec: Spec) -> str | None:
    """Returns one sentence why the kernels cannot do this, or None."""
    channels, pixels = x_shape[-1], prod(x_shape[:-1])
    takes = "implementation 'pallas_gpu' takes"
    if (dtype := jnp.dtype(x_dtype)) != jnp.bfloat16:
        return f"{takes} bfloat16, not {dtype.name}."
    if spec.stride != 1:
        return f"{takes} stride 1, not {spec.stride}."
    if channels % 8 or features % 8 or not channels or not features:
        return f"{takes} multiples of 8 channels and features, not {channels} and {features}."
    if not 0 < pixels < _MAX_PIXELS:
        return f"{takes} 1 to {_MAX_PIXELS - 1} pixels, not the {pixels} of {tuple(x_shape)}."
    return None


def check(x_shape, x_dtype, features: int, spec: Spec) -> None:
    """Raises InputError with the sentence of `unsupported`, if there is one."""
    if reason := unsupported(x_shape, x_dtype, features, spec):
        raise InputError(reason)
