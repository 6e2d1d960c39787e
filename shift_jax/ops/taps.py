"""Each channel's weighted sum of neighboring pixels, from a place of its own: linear in both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from shift_jax.errors import InputError

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


def taps(
    x: Float[Array, "*batch h w c"],
    starts: Float[Array, "c 2"],
    weights: Float[Array, "c 2 n"],
    stride: int,
) -> Float[Array, "*batch h_out w_out c"]:
    """Returns Σᵢⱼ weights[c, 0, i] · weights[c, 1, j] · x[s·y + starts[c, 0] + i, s·x + … + j, c].

    Pixels from outside are zero. It is linear in `x` and in the weights of each axis, and has
    derivatives of both modes and every order with respect to them; none with respect to `starts`.

    Args:
      x: [..., H, W, C].
      starts: (C, 2), integers as floats of any size.
      weights: (C, 2, n) of n neighbors down and n to the right, in the type to compute in.
      stride: s.
    """
    # All that leads out of the image is alike; clipped, the sums of indices cannot overflow.
    height, width, channels = x.shape[-3:]
    if height * width * channels > np.iinfo(np.int32).max:
        raise InputError(f"Images of {height}×{width}×{channels} are too large for learned shifts.")
    sides = np.array([height, width], np.float32)
    starts = jnp.clip(lax.stop_gradient(starts), -sides - 2, sides + 2).astype(jnp.int32)
    return _taps_p.bind(x, starts, weights[:, 0], weights[:, 1], stride=stride)


def _neighbor(x: Array, starts: Array, stride: int) -> Array:
    """Gathers x[s·y + starts[c, 0], s·x + starts[c, 1], c]; see `shift_jax.ops.shift`."""
    *batch, height, width, channels = x.shape
    down, right = (
        jnp.arange(0, size, stride, dtype=jnp.int32)[:, None] + starts[:, axis]
        for axis, size in enumerate((height, width))
    )
    inside = ((down >= 0) & (down < height))[:, None] & ((right >= 0) & (right < width))
    row_starts = jnp.clip(down, 0, height - 1)[:, None] * np.int32(width * channels)
    channel = np.arange(channels, dtype=np.int32)
    indices = row_starts + (jnp.clip(right, 0, width - 1) * np.int32(channels) + channel)
    images = tuple(range(len(batch)))
    found = lax.gather(
        x.reshape(*batch, height * width * channels),
        jnp.broadcast_to(indices, (*batch, *indices.shape))[..., None],
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
    return jnp.where(inside, found, jnp.zeros((), x.dtype))


def _neighbors(x: Array, starts: Array, count: int, stride: int) -> list[list[Array]]:
    step = np.arange(count, dtype=np.int32)
    return [[_neighbor(x, starts + np.stack([i, j]), stride) for j in step] for i in step]


def _formulation(x: Array, starts: Array, rows: Array, columns: Array, *, stride: int) -> Array:
    total = jnp.zeros((), rows.dtype)
    for i, line in enumerate(_neighbors(x, starts, rows.shape[-1], stride)):
        for j, pixels in enumerate(line):
            total += rows[:, i] * columns[:, j] * pixels
    return total.astype(x.dtype)


def _correlation(g: Array, x: Array, starts: Array, count: int, stride: int, dtype) -> Array:
    """Returns (C, n, n): the sum over batch and space of g times each neighbor."""
    axes = tuple(range(x.ndim - 1))
    found = _neighbors(x, starts, count, stride)
    sums = [[(g.astype(dtype) * pixels).sum(axes) for pixels in line] for line in found]
    return jnp.moveaxis(jnp.array(sums), -1, 0)


# A primitive of JAX as `shift`: autodiff of the gathers scatters, and `jax.custom_vjp` has no
# forward derivative.
_taps_p = Primitive("taps")


@_taps_p.def_abstract_eval
def _type_of_result(x, starts, rows, columns, *, stride):
    *batch, height, width, channels = x.shape
    shape = (*batch, -(-height // stride), -(-width // stride), channels)
    return ShapedArray(shape, x.dtype)


def _jvp(primals, tangents, *, stride):
    out = _taps_p.bind(*primals, stride=stride)
    total = ad.Zero(ShapedArray(out.shape, out.dtype))
    for index in (0, 2, 3):
        if not isinstance(tangents[index], ad.Zero):
            operands = [*primals[:index], tangents[index], *primals[index + 1 :]]
            total = ad.add_tangents(total, _taps_p.bind(*operands, stride=stride))
    return out, total


def _transpose(g, x, starts, rows, columns, *, stride):
    if isinstance(g, ad.Zero):
        return None, None, None, None
    if ad.is_undefined_primal(x):
        # The same pixels seen from the other end.
        height, width = x.aval.shape[-3:-1]
        spread = [(0, 0, 0)] * g.ndim
        for axis, size in ((-3, height), (-2, width)):
            spread[axis] = (0, size - 1 - (g.shape[axis] - 1) * stride, stride - 1)
        g = lax.pad(g, jnp.zeros((), g.dtype), spread)
        starts = 1 - rows.shape[-1] - starts
        return _taps_p.bind(g, starts, rows[:, ::-1], columns[:, ::-1], stride=1), None, None, None
    if ad.is_undefined_primal(rows):
        sums = _correlation(g, x, starts, columns.shape[-1], stride, columns.dtype)
        return None, None, jnp.einsum("cij,cj->ci", sums, columns), None
    sums = _correlation(g, x, starts, rows.shape[-1], stride, rows.dtype)
    return None, None, None, jnp.einsum("cij,ci->cj", sums, rows)


def _batch(args, axes, *, stride):
    """The axis joins the batch or, if offsets differ along it, the channels."""
    x, *tables = args
    size = next(a.shape[i] for a, i in zip(args, axes, strict=True) if i is not None)
    x = batching.bdim_at_front(x, axes[0], size)
    if all(axis is None for axis in axes[1:]):
        return _taps_p.bind(x, *tables, stride=stride), 0
    tables = [
        batching.bdim_at_front(table, axis, size).reshape(-1, table.shape[-1])
        for table, axis in zip(tables, axes[1:], strict=True)
    ]
    x = jnp.moveaxis(x, 0, -2)
    out = _taps_p.bind(x.reshape(*x.shape[:-2], -1), *tables, stride=stride)
    return out.reshape(*out.shape[:-1], *x.shape[-2:]), out.ndim - 1


_taps_p.def_impl(jax.jit(_formulation, static_argnames="stride"))
mlir.register_lowering(_taps_p, mlir.lower_fun(_formulation, multiple_results=False))
ad.primitive_jvps[_taps_p] = _jvp
ad.primitive_transposes[_taps_p] = _transpose
batching.primitive_batchers[_taps_p] = _batch
