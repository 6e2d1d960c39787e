"""Each channel's value between four pixels, from a place of its own, and its differences."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from shift_jax.errors import InputError
from shift_jax.ops.channels import per_channel

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

_OUTSIDE = -(2**30)  # The sum of two of these is an int32.

# Of each axis: 1 - f and f times the pixels at the start and after it; the difference of the two,
# which is the derivative with respect to f; or the pixel at the start alone.
BETWEEN, DIFFERENCE, AT = "between", "difference", "at"
Kinds = tuple[str, str]


def taps(
    x: Float[Array, "*batch h w c"],
    starts: Float[Array, "c 2"],
    fractions: Float[Array, "c 2"],
    stride: int,
    kinds: Kinds = (BETWEEN, BETWEEN),
) -> Float[Array, "*batch h_out w_out c"]:
    """Returns what lies at (s·y + starts[c, 0] + fractions[c, 0], s·x + …) of channel c.

    Pixels from outside are zero. It is linear in `x`, and has derivatives of both modes and every
    order with respect to `x` and `fractions`; none with respect to `starts`.

    Args:
      x: [..., H, W, C].
      starts: (C, 2), integers as floats of any size.
      fractions: (C, 2) from 0 to 1, of the type to compute in.
      stride: s.
      kinds: what to compute along each axis.
    """
    # All that leads out of the image is alike; clipped, the sums of indices cannot overflow.
    height, width, channels = x.shape[-3:]
    is_symbolic = export.is_symbolic_dim(height) or export.is_symbolic_dim(width)
    if not is_symbolic and height * width * channels > -_OUTSIDE:
        raise InputError(f"Images of {height}×{width}×{channels} are too large for learned shifts.")
    sides = jnp.stack([jnp.asarray(size, jnp.float32) for size in (height, width)])[None]
    starts = jnp.clip(lax.stop_gradient(starts), -sides - 2, sides + 2).astype(jnp.int32)
    return _taps_p.bind(x, starts, fractions, stride=stride, kinds=kinds, dtype=x.dtype)


def _weights(fraction: Array, kind: str) -> list[Array]:
    one = jnp.ones_like(fraction)
    if kind == AT:
        return [one]
    return [-one, one] if kind == DIFFERENCE else [1 - fraction, fraction]


def _gathers(
    x: Array, starts: Array, fractions: Array, *, stride: int, kinds: Kinds, dtype, on_cpu: bool
) -> Array:
    """Gathers and adds the neighbors in one pass.

    The place of a pixel in its image is the sum of an (H, C) and a (W, C) table, negative if the
    pixel is outside.

    Args:
      x, starts, fractions, stride, kinds: as for `taps`.
      dtype: of the result.
      on_cpu: whether to write the tables and weights to memory first. XLA for CPUs otherwise
        computes them again for each pixel, and its loop then takes up to four times as long. Also
        whether indices count images too: XLA for GPUs would write them all to memory.
    """
    height, width, channels = x.shape[-3:]

    def lines(neighbor: Array | int) -> tuple[Array, Array, Array]:
        channel = np.arange(channels, dtype=np.int32)[None]
        down, right = (
            stride * jnp.arange((size - 1) // stride + 1, dtype=jnp.int32)[:, None]
            + (starts[None, :, axis] + neighbor)
            for axis, size in enumerate((height, width))
        )
        rows = jnp.where((down >= 0) & (down < height), down * (width * channels), _OUTSIDE)
        columns = jnp.where((right >= 0) & (right < width), right * channels + channel, _OUTSIDE)
        weights = [
            of_kind[0] if len(of_kind) == 1 else jnp.where(neighbor == 0, *of_kind)
            for of_kind in (_weights(fractions[:, axis], kinds[axis]) for axis in range(2))
        ]
        return rows, columns, jnp.stack(weights)

    count = 1 if kinds == (AT, AT) else 2
    if on_cpu and count == 2:
        rows, columns, weights = lax.map(lines, jnp.arange(2, dtype=jnp.int32))
    else:
        rows, columns, weights = map(jnp.stack, zip(*map(lines, range(count)), strict=True))
    total = jnp.zeros((), fractions.dtype)
    for i in range(1 if kinds[0] == AT else 2):
        for j in range(1 if kinds[1] == AT else 2):
            pixels = _pixels(x, rows[i][:, None] + columns[j][None], over_images=on_cpu)
            total += per_channel(weights[i, 0] * weights[j, 1], pixels) * pixels
    return total.astype(dtype)


def _pixels(x: Array, places: Array, *, over_images: bool) -> Array:
    """Gathers from images flattened to one axis, and zeros for negative places (H / s, W / s, C).

    Either way, sharding the images moves no data.
    """
    *batch, height, width, channels = x.shape
    images, axis = tuple(range(len(batch))), len(batch)
    # One slice of all images for each place, or one element for each place of each image.
    dimensions, sizes = lax.GatherDimensionNumbers(images, (axis,), (axis,)), (*batch, 1)
    inside, places = places >= 0, jnp.maximum(places, 0)[..., None]
    if over_images:
        dimensions = lax.GatherDimensionNumbers((), (axis,), (axis,), images, images)
        sizes = (1,) * (axis + 1)
        places = jnp.broadcast_to(per_channel(places, x[..., None]), (*batch, *places.shape))
    flat = x.reshape(*batch, height * width * channels)
    found = lax.gather(flat, places, dimensions, sizes, mode="promise_in_bounds")
    return jnp.where(per_channel(inside, found), found, jnp.zeros((), x.dtype))


def _moves(x: Array, starts: Array, fractions: Array, *, stride: int, kinds: Kinds, dtype) -> Array:
    """Moves the whole tensor by each distance of any channel: all rows, then all columns."""
    for axis, kind in enumerate(kinds):
        dim = x.ndim - 3 + axis
        size, start = x.shape[dim], starts[:, axis]
        weights = _weights(fractions[:, axis], kind)
        margins = [(0, 0, 0)] * x.ndim
        margins[dim] = (size, size, 0)
        padded = lax.pad(x, jnp.zeros((), x.dtype), margins)
        shape = (*x.shape[:dim], (size - 1) // stride + 1, *x.shape[dim + 1 :])

        def add(distance, total, padded=padded, start=start, weights=weights, size=size, dim=dim):
            each = [(start + i == distance) * w for i, w in enumerate(weights)]
            weight = functools.reduce(jnp.add, each)
            moved = lax.dynamic_slice_in_dim(padded, size + distance, size, dim)
            moved = lax.slice_in_dim(moved, 0, size, stride, dim)
            return total + per_channel(weight, moved) * moved

        first = jnp.maximum(start.min(), -size)
        last = jnp.minimum(start.max() + len(weights) - 1, size)
        total = lax.fori_loop(first, last + 1, add, jnp.zeros(shape, fractions.dtype))
        x = total.astype(dtype)
    return x


def _formulation(x: Array, starts: Array, fractions: Array, **how) -> Array:
    return lax.platform_dependent(
        x,
        starts,
        fractions,
        # Gathers of single elements are slow on a TPU.
        tpu=lambda *operands: _moves(*operands, **how),
        cpu=lambda *operands: _gathers(*operands, on_cpu=True, **how),
        default=lambda *operands: _gathers(*operands, on_cpu=False, **how),
    )


# A primitive of JAX as `shift`: autodiff of the gathers scatters, and `jax.custom_vjp` has no
# forward derivative.
_taps_p = Primitive("taps")


@_taps_p.def_abstract_eval
def _type_of_result(x, starts, fractions, *, stride, kinds, dtype):
    del starts, fractions, kinds
    *batch, height, width, channels = x.shape
    shape = (*batch, *((size - 1) // stride + 1 for size in (height, width)), channels)
    return ShapedArray(shape, dtype)


def _jvp(primals, tangents, *, kinds, dtype, **how):
    x, starts, fractions = primals
    out = _taps_p.bind(x, starts, fractions, kinds=kinds, dtype=dtype, **how)
    total = ad.Zero(ShapedArray(out.shape, out.dtype))
    if not isinstance(tangents[0], ad.Zero):
        total = _taps_p.bind(tangents[0], starts, fractions, kinds=kinds, dtype=dtype, **how)
    for axis in range(2):
        if isinstance(tangents[2], ad.Zero) or kinds[axis] != BETWEEN:
            continue
        changed = (DIFFERENCE, kinds[1]) if axis == 0 else (kinds[0], DIFFERENCE)
        # Its sum over all images is the derivative: rounded, each addend would add an error.
        wide = {"kinds": changed, "dtype": fractions.dtype, **how}
        slope = _taps_p.bind(x, starts, fractions, **wide)
        slope = per_channel(tangents[2][:, axis], slope) * slope
        total = ad.add_tangents(total, slope.astype(dtype))
    return out, total


def _transpose(g, x, starts, fractions, *, stride, kinds, dtype):
    """The same pixels seen from the other end."""
    del dtype
    height, width = x.aval.shape[-3:-1]
    spread = [(0, 0, 0)] * g.ndim
    for dim, size in ((-3, height), (-2, width)):
        spread[dim] = (0, size - 1 - (g.shape[dim] - 1) * stride, stride - 1)
    g = lax.pad(g, jnp.zeros((), g.dtype), spread)
    reach = np.array([kind != AT for kind in kinds], np.int32)
    how = {"stride": 1, "kinds": kinds, "dtype": x.aval.dtype}
    result = _taps_p.bind(g, -starts - reach[None], 1 - fractions, **how)
    return (-result if kinds.count(DIFFERENCE) == 1 else result), None, None


def _batch(args, axes, **how):
    """The axis joins the batch or, if offsets differ along it, the channels."""
    x, *tables = args
    size = next(a.shape[i] for a, i in zip(args, axes, strict=True) if i is not None)
    x = batching.bdim_at_front(x, axes[0], size)
    if axes[1] is None and axes[2] is None:
        return _taps_p.bind(x, *tables, **how), 0
    tables = [
        batching.bdim_at_front(table, axis, size).reshape(-1, 2)
        for table, axis in zip(tables, axes[1:], strict=True)
    ]
    x = jnp.moveaxis(x, 0, -2)
    merged = x.reshape(*x.shape[:-2], -1)
    out = _taps_p.bind(merged, *tables, **how)
    return out.reshape(*out.shape[:-1], *x.shape[-2:]), out.ndim - 1


_taps_p.def_impl(jax.jit(_formulation, static_argnames=("stride", "kinds", "dtype")))
mlir.register_lowering(_taps_p, mlir.lower_fun(_formulation, multiple_results=False))
ad.primitive_jvps[_taps_p] = _jvp
ad.primitive_transposes[_taps_p] = _transpose
batching.primitive_batchers[_taps_p] = _batch
