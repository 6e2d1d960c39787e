"""The shift operation (Section 2.1, Eq. 6 and 7): every channel moves by its own offset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from shift_jax.errors import InputError
from shift_jax.ops.offsets import Offsets, Order, resolve_offsets

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Shaped
    from numpy.typing import ArrayLike


def shift(
    x: Shaped[Array, "*batch h w c"],
    kernel_size: int = 3,
    dilation: int = 1,
    order: Order = "grouped",
    offsets: ArrayLike | None = None,
) -> Shaped[Array, "*batch h w c"]:
    """Moves each channel by its own offset: `out[y, x, c] = in[y + dy_c, x + dx_c, c]` (Eq. 6).

    Pixels from outside the image are zero. The gradient is the exact adjoint: the same operation
    with negated offsets.

        >>> import jax.numpy as jnp
        >>> from shift_jax import shift
        >>> row = jnp.array([1, 2, 3]).reshape(1, 3, 1)
        >>> shift(row, offsets=[(0, 1)]).ravel().tolist()
        [2, 3, 0]

    Args:
      x: [..., H, W, C] of any dtype.
      kernel_size: odd side of the window, in units of `dilation`.
      dilation: distance between neighboring directions, in pixels.
      order: "grouped" or "interleaved", see `shift_offsets`.
      offsets: integers (C, 2) of (dy, dx) in pixels; they override the three above.

    Returns:
      [..., H, W, C] of the dtype of `x`.

    Raises:
      InputError: `x` has fewer than three axes, or the offsets are not valid.
    """
    x = jnp.asarray(x)
    if x.ndim < 3:
        raise InputError(f"x has shape {x.shape}, expected [..., height, width, channels].")
    return shift_by(x, resolve_offsets(x.shape[-1], kernel_size, dilation, order, offsets))


def shift_by(x: Array, offsets: Offsets) -> Array:
    """Shifts by one static (dy, dx) for each channel, in the target platform's formulation.

    The target is the platform of the lowering, not the host: ahead-of-time compilation for a TPU
    on a CPU gets the TPU's formulation. `benchmarks/results/` has the measurements.

    Args:
      x: [..., H, W, C].
      offsets: (dy, dx) of each channel.
    """
    if not any(dy or dx for dy, dx in offsets):
        return x
    return _shift_p.bind(x, offsets=offsets)


def _gather(x: Array, offsets: Offsets) -> Array:
    """Gathers each output's input: one pass, whatever the number of directions.

    The indices are the sum of an (H, C) and a (W, C) table, which XLA adds inside the loop. The
    image axes are batching dimensions of the gather, so that sharding them moves no data.
    """
    *batch, height, width, channels = x.shape
    if height * width * channels > np.iinfo(np.int32).max:
        return _rows_then_columns(x, offsets)
    # All offsets that lead out of the image are alike; clipped, the sums below cannot overflow.
    table = np.clip(np.asarray(offsets), [-height, -width], [height, width]).astype(np.int32)
    rows = np.arange(height, dtype=np.int32)[:, None, None] + table[:, 0]
    columns = np.arange(width, dtype=np.int32)[None, :, None] + table[:, 1]
    row_starts = np.clip(rows, 0, height - 1) * np.int32(width * channels)
    channel = np.arange(channels, dtype=np.int32)
    in_row = np.clip(columns, 0, width - 1) * np.int32(channels) + channel
    inside = jnp.asarray((rows >= 0) & (rows < height)) & ((columns >= 0) & (columns < width))
    indices = jnp.broadcast_to(jnp.asarray(row_starts) + in_row, x.shape)[..., None]
    images = tuple(range(len(batch)))
    found = lax.gather(
        x.reshape(*batch, height * width * channels),
        indices,
        lax.GatherDimensionNumbers(
            offset_dims=(),
            collapsed_slice_dims=(len(batch),),
            start_index_map=(len(batch),),
            operand_batching_dims=images,
            start_indices_batching_dims=images,
        ),
        slice_sizes=(1,) * (len(batch) + 1),
        mode="promise_in_bounds",
    )
    # A select, not a product: 0 · NaN and 0 · inf are not 0.
    return jnp.where(inside, found, jnp.zeros((), x.dtype))


def _rows_then_columns(x: Array, offsets: Offsets) -> Array:
    """Moves the whole tensor and lets each channel select its own move: all dy, then all dx.

    Two passes need 2(k - 1) moves; one pass would need k² - 1, which a TPU reads one by one from
    its memory.
    """
    for axis, distances in zip((-3, -2), np.transpose(offsets), strict=True):
        moved = x
        for distance in dict.fromkeys(distances.tolist()):
            if distance:
                moved = jnp.where(distances == distance, _move(x, axis, distance), moved)
        x = moved
    return x


def _move(x: Array, axis: int, distance: int) -> Array:
    """Returns `out[i] = in[i + distance]` along one axis, zero from outside, for all channels."""
    size = x.shape[axis]
    distance = min(max(distance, -size), size)
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (-distance, distance, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


def _formulation(x: Array, *, offsets: Offsets) -> Array:
    return lax.platform_dependent(
        x,
        tpu=lambda x: _rows_then_columns(x, offsets),
        default=lambda x: _gather(x, offsets),
    )


# A primitive of JAX: autodiff of either formulation is several times slower than the adjoint,
# which is the same shift backward, and `jax.custom_vjp` has no forward derivative. A linear
# primitive has derivatives of both modes and every order.
_shift_p = Primitive("shift")


@_shift_p.def_abstract_eval
def _type_of_result(x, *, offsets):
    del offsets
    return x


def _transpose(cotangent, x, *, offsets):
    del x
    return [shift_by(cotangent, tuple((-dy, -dx) for dy, dx in offsets))]


def _batch(args, axes, *, offsets):
    return shift_by(jnp.moveaxis(args[0], axes[0], 0), offsets), 0


_shift_p.def_impl(jax.jit(_formulation, static_argnames="offsets"))
mlir.register_lowering(_shift_p, mlir.lower_fun(_formulation, multiple_results=False))
ad.deflinear2(_shift_p, _transpose)
batching.primitive_batchers[_shift_p] = _batch
