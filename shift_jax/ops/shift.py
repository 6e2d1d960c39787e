"""The shift operation (Section 2.1, Eq. 6 and 7): every channel moves by its own offset."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from shift_jax.errors import InputError
from shift_jax.ops.channels import per_channel
from shift_jax.ops.devices import BATCH_AXES, Split, mapped, seeing_devices, split_of_batch
from shift_jax.ops.offsets import Offsets, Order, resolve_offsets

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Shaped
    from numpy.typing import ArrayLike

_OUTSIDE = -(2**30)  # The sum of two of these is an int32.


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
    if 0 in x.shape or not any(dy or dx for dy, dx in offsets):
        return x
    return _shift_p.bind(x, offsets=offsets, batch_axes=BATCH_AXES.value)


def _gather(x: Array, offsets: Offsets, *, block: int, over_batch: bool) -> Array:
    """Gathers each output's input: one pass, whatever the number of directions.

    The index of a pixel is the sum of an (H, C / block) and a (W, C / block) table, which XLA adds
    where it needs the index. It is negative if the pixel is outside the image.

    Args:
      x: [..., H, W, C].
      offsets: (dy, dx) of each channel.
      block: how many neighboring channels to load at once. Channels that are no multiple of it, or
        more than two offsets in one block, are loaded one by one.
      over_batch: whether indices count the pixels of the whole batch. If they count those of one
        image, a sharded batch stays where it is, but a whole network has XLA write an array of
        indices for all images, eight bytes for each block.
    """
    *images, height, width, channels = x.shape
    if export.is_symbolic_dim(height) or export.is_symbolic_dim(width):
        return _rows_then_columns(x, offsets)
    if channels % block or not _at_most_two(offsets, block):
        block = 1
    blocks = channels // block
    of_image = height * width * blocks
    if of_image > -_OUTSIDE:
        return _rows_then_columns(x, offsets)
    shape, start = (*images, height, width, blocks), np.int32(0)
    if over_batch and x.size // block <= np.iinfo(np.int32).max:
        images, shape = (), (math.prod(images), height, width, blocks)
        start = lax.broadcasted_iota(np.int32, shape, 0) * np.int32(of_image)
    # In two steps: with explicit sharding JAX does not merge axes and split them in one.
    in_blocks, axis = x.reshape(*images, -1).reshape(*images, -1, block), len(shape) - 1
    dimensions = lax.GatherDimensionNumbers(
        offset_dims=(axis + 1,),
        collapsed_slice_dims=(len(images),),
        start_index_map=(len(images),),
        operand_batching_dims=tuple(range(len(images))),
        start_indices_batching_dims=tuple(range(len(images))),
    )

    def moved(table: np.ndarray) -> Array:
        """Moves whole blocks, each by one (dy, dx)."""
        y = np.arange(height)[:, None] + table[:, 0]
        rows = np.where((y >= 0) & (y < height), y * width * blocks + np.arange(blocks), _OUTSIDE)
        column = np.arange(width)[:, None] + table[:, 1]
        columns = np.where((column >= 0) & (column < width), column * blocks, _OUTSIDE)
        # Added as they are, they would make one larger table, which XLA would write to memory.
        index = lax.broadcast_in_dim(rows.astype(np.int32), shape, (axis - 2, axis))
        index += lax.broadcast_in_dim(columns.astype(np.int32), shape, (axis - 1, axis))
        found = lax.gather(
            in_blocks,
            (index + start)[..., None],
            dimensions,
            slice_sizes=(*(1 for _ in images), 1, block),
            mode="clip",
        )
        # A select, not a product: 0 · NaN and 0 · inf are not 0.
        return jnp.where(index[..., None] >= 0, found, jnp.zeros((), x.dtype))

    table = np.asarray(offsets).reshape(blocks, block, 2)
    with_first = (table == table[:, :1]).all(-1)
    y = moved(table[:, 0])
    if not with_first.all():
        y = jnp.where(per_channel(with_first, y), y, moved(table[:, -1]))
    return y.reshape(x.shape)


def _at_most_two(offsets: Offsets, block: int) -> bool:
    """Whether each channel of a block moves as the first or the last one does."""
    table = np.asarray(offsets).reshape(-1, block, 2)
    first, last = (table == table[:, :1]).all(-1), (table == table[:, -1:]).all(-1)
    return bool((first | last).all())


def _rows_then_columns(x: Array, offsets: Offsets) -> Array:
    """Moves the whole tensor and lets each channel select its own move: all dy, then all dx.

    Two passes need 2(k - 1) moves; one pass would need k² - 1, which a TPU reads one by one from
    its memory.
    """
    for axis, distances in zip((-3, -2), np.transpose(offsets), strict=True):
        moved = x
        for distance in dict.fromkeys(distances.tolist()):
            if distance:
                has_it = per_channel(distances == distance, x)
                moved = jnp.where(has_it, _move(x, axis, distance), moved)
        x = moved
    return x


def _move(x: Array, axis: int, distance: int) -> Array:
    """Returns `out[i] = in[i + distance]` along one axis, zero from outside, for all channels."""
    size = x.shape[axis]
    if not export.is_symbolic_dim(size):
        distance = min(max(distance, -size), size)
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (-distance, distance, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


def _lower(ctx, x, *, offsets: Offsets, batch_axes: tuple[str, ...] | None):
    """The lowering rule: a formulation for each platform, of each device's part of the batch."""
    batch = ctx.avals_in[0].shape[:-3]
    split = Split(why_not="the batch is open")
    if all(isinstance(size, int) for size in batch):
        one = batch[0] if len(batch) == 1 else 1
        split = split_of_batch(ctx.module_context.axis_context, one, batch_axes)

    def gathered(block: int):
        def on_one_device(x):
            return (_gather(x, offsets, block=block, over_batch=split.why_not is None),)

        return lambda x: mapped(on_one_device, split, [True], [True])(x)[0]

    def formulation(x):
        return lax.platform_dependent(
            x,
            tpu=lambda x: _rows_then_columns(x, offsets),
            cpu=gathered(1),
            # Four channels are one load for a GPU, and one pass of XLA's loop over elements.
            default=gathered(4),
        )

    return mlir.lower_fun(formulation, multiple_results=False)(ctx, x)


# A primitive of JAX: autodiff of either formulation is several times slower than the adjoint,
# which is the same shift backward, and `jax.custom_vjp` has no forward derivative. A linear
# primitive has derivatives of both modes and every order.
_shift_p = Primitive("shift")
seeing_devices.add(_shift_p)


@_shift_p.def_abstract_eval
def _type_of_result(x, **static):
    del static
    return x


def _transpose(cotangent, x, *, offsets, batch_axes):
    del x
    back = tuple((-dy, -dx) for dy, dx in offsets)
    return [_shift_p.bind(cotangent, offsets=back, batch_axes=batch_axes)]


def _batch(args, axes, **static):
    return _shift_p.bind(jnp.moveaxis(args[0], axes[0], 0), **static), 0


def _bind(x, offsets, batch_axes):
    return _shift_p.bind(x, offsets=offsets, batch_axes=batch_axes)


_shift_p.def_impl(jax.jit(_bind, static_argnames=("offsets", "batch_axes")))
mlir.register_lowering(_shift_p, _lower)
ad.deflinear2(_shift_p, _transpose)
batching.primitive_batchers[_shift_p] = _batch
