"""Shifts whose distances a network learns: Active Shift (bilinear) and Sparse Shift (rounded)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from shift_jax.errors import InputError, positive_int
from shift_jax.ops.shift import shift_by
from shift_jax.ops.taps import AT, taps

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float
    from numpy.typing import ArrayLike


def active_shift(
    x: Float[Array, "*batch h w c"], offsets: ArrayLike, stride: int = 1
) -> Float[Array, "*batch h_out w_out c"]:
    """Moves each channel by its own real offset (Jeon & Kim 2018, arXiv:1806.07370).

    `out[y, x, c]` interpolates between the four pixels around `(s·y + dy_c, s·x + dx_c)` of channel
    c. Pixels from outside the image are zero. Derivatives of both modes and every order
    are exact; with respect to an offset that is an integer, it is the right-hand one.

        >>> import jax, jax.numpy as jnp
        >>> from shift_jax import active_shift
        >>> row = jnp.array([1.0, 2.0, 4.0]).reshape(1, 3, 1)
        >>> active_shift(row, jnp.array([[0.0, 0.5]])).ravel().tolist()
        [1.5, 3.0, 2.0]
        >>> jax.grad(lambda offsets: active_shift(row, offsets).sum())(jnp.array([[0.0, 0.5]]))
        Array([[-6.5, -1. ]], dtype=float32)

    Args:
      x: [..., H, W, C] of a floating-point type.
      offsets: (C, 2) of (dy, dx) in pixels. Known integers, which includes those of variables that
        a jitted function closes over, make it `shift_jax.shift`.
      stride: s; rows and columns 0, s, 2s, … of the moved image are computed.

    Returns:
      [..., ⌈H/s⌉, ⌈W/s⌉, C] of the type of `x`; products and sums are in float32 at least.

    Raises:
      InputError: a shape, a type or a stride that is not valid.
    """
    x, stride = _checked(x, offsets, stride)
    table = known_offsets(offsets)
    if table is not None and (table == np.floor(table)).all():
        return _fixed(x, table, stride)
    offsets = _wide(x, offsets)
    starts = jnp.floor(jax.lax.stop_gradient(offsets))
    return taps(x, starts, offsets - starts, stride)


def sparse_shift(
    x: Float[Array, "*batch h w c"], offsets: ArrayLike, stride: int = 1
) -> Float[Array, "*batch h_out w_out c"]:
    """Moves each channel by its rounded offset, and learns as if it interpolated.

    The Sparse Shift Layer (Chen et al. 2019, arXiv:1903.05285). The offsets round half
    away from zero. The derivative with respect to `x` is that of the shift by integers; the one
    with respect to an offset is `active_shift`'s, at the offset before rounding.

        >>> import jax, jax.numpy as jnp
        >>> from shift_jax import sparse_shift
        >>> row = jnp.array([1.0, 2.0, 4.0]).reshape(1, 3, 1)
        >>> sparse_shift(row, jnp.array([[0.2, 0.5]])).ravel().tolist()
        [2.0, 4.0, 0.0]

    Args, returns and raises as `active_shift`; known offsets make it `shift_jax.shift`.
    """
    x, stride = _checked(x, offsets, stride)
    table = known_offsets(offsets)
    if table is not None:
        return _fixed(x, np.trunc(table + np.copysign(0.5, table)), stride)
    return _sparse(x, _wide(x, offsets), stride)


def known_offsets(offsets: Any) -> np.ndarray | None:
    """Returns the values of offsets that do not depend on traced values, else None."""
    if isinstance(offsets, jax.Array):
        if isinstance(offsets, Tracer) or not offsets.is_fully_addressable:
            return None
    table = np.asarray(offsets, np.float64)
    return table if np.isfinite(table).all() else None


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def _sparse(x: Array, offsets: Array, stride: int) -> Array:
    rounded = jnp.trunc(offsets + jnp.copysign(0.5, offsets))
    return taps(x, rounded, jnp.zeros_like(offsets), stride, (AT, AT))


@_sparse.defjvp
def _sparse_jvp(stride, primals, tangents):
    x, offsets = primals
    x_tangent, offsets_tangent = tangents
    starts = jnp.floor(offsets)
    _, moved = jax.jvp(
        lambda offsets: taps(x, starts, offsets - starts, stride),
        (offsets,),
        (offsets_tangent,),
    )
    return _sparse(x, offsets, stride), _sparse(x_tangent, offsets, stride) + moved


def _wide(x: Array, offsets: ArrayLike) -> Array:
    return jnp.asarray(offsets, jnp.promote_types(x.dtype, jnp.float32))


def _fixed(x: Array, table: np.ndarray, stride: int) -> Array:
    # Far outside is far outside; clipped, no integer overflows.
    height, width, _ = x.shape[-3:]
    table = np.clip(table, [-height, -width], [height, width]).astype(int)
    moved = shift_by(x, tuple((int(dy), int(dx)) for dy, dx in table))
    return moved[..., ::stride, ::stride, :]


def _checked(x: Any, offsets: Any, stride: int) -> tuple[Array, int]:
    x = jnp.asarray(x)
    if x.ndim < 3 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise InputError(
            f"x is {x.dtype} of shape {x.shape}, expected a floating-point type and [..., height, "
            "width, channels]."
        )
    if np.shape(offsets) != (x.shape[-1], 2):
        raise InputError(
            f"offsets have shape {np.shape(offsets)}, expected ({x.shape[-1]}, 2): one (dy, dx) "
            f"for each of the {x.shape[-1]} channels."
        )
    return x, positive_int("stride", stride)
