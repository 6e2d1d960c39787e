"""Values of each channel beside images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jax import lax

if TYPE_CHECKING:
    import numpy as np
    from jax import Array


def per_channel(values: Array | np.ndarray, like: Array) -> Array:
    """Returns the values (C,) or (1, C) with more axes of size 1 in front, as many as `like` has.

    Arithmetic with images [..., H, W, C] then passes under `jax_numpy_rank_promotion="raise"`, and
    gives the program that implicit promotion gives elsewhere.
    """
    return lax.expand_dims(values, range(like.ndim - values.ndim))
