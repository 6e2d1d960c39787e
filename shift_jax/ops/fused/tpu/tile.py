"""What the TPU kernels do with one tile on the chip."""

from __future__ import annotations

from functools import partial

import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from shift_jax.ops.channels import per_channel
from shift_jax.ops.fused.spec import Spec
from shift_jax.ops.fused.tpu.plan import PRODUCT_ROWS, Plan, Window
from shift_jax.ops.fused.tpu.stream import Stream, from_words, to_words

# Pixels per operation of a kernel's body: more would not fit in the registers.
COLUMNS = 8


def store_rows(ring, first, x, window: Window, prologue) -> None:
    """Puts a block [rows, columns, phases, images, channels] that has arrived into the ring."""
    for row in range(x.shape[0]):
        for phase in range(x.shape[2]):
            for columns in chunks(x.shape[1], COLUMNS):
                pixels = prologue(x[row, columns.start : columns.stop, phase])
                to = pl.ds(window.left + columns.start, len(columns))
                ring[first + row, phase, to] = to_words(pixels)


def expand_rows(expand, ring, first, x, window: Window, prologue) -> None:
    """Puts the block's product with `expand` into the ring."""
    height, width, phases, images, _ = x.shape
    for rows in chunks(height, PRODUCT_ROWS // (width * phases * images)):
        pixels = x[rows.start : rows.stop].reshape(-1, x.shape[-1])
        # Rounded as it would be between two convolutions.
        product = dot(pixels, expand[...]).astype(x.dtype)
        words = to_words(prologue(product)).reshape(len(rows), width, phases, -1, ring.shape[-1])
        for row in rows:
            for phase in range(phases):
                to = pl.ds(window.left, width)
                ring[first + row, phase, to] = words[row - rows.start, :, phase]


def apply_prologue(refs, spec: Spec, x):
    """Applies scale, bias and ReLU in float32, and rounds once."""
    if not spec.prologue_relu and not {"prologue_scale", "prologue_bias"} & refs.keys():
        return x
    wide = x.astype(jnp.float32)
    if "prologue_scale" in refs:
        wide = wide * per_channel(refs["prologue_scale"][...], wide)
    if "prologue_bias" in refs:
        wide = wide + per_channel(refs["prologue_bias"][...], wide)
    wide = jnp.maximum(wide, 0) if spec.prologue_relu else wide
    return wide.astype(x.dtype)


def through_prologue(refs, spec: Spec, gradient, at: tuple):
    """Returns the cotangent [columns, images, lanes] before the prologue; adds to the sums."""
    x, lanes = refs["x"][at].astype(jnp.float32), at[-1]
    scale, bias = (
        per_channel(refs[name][:, lanes], x) if name in refs else None
        for name in ("prologue_scale", "prologue_bias")
    )
    masked = gradient.astype(jnp.float32)
    if spec.prologue_relu:
        before = x if scale is None else x * scale
        before = before if bias is None else before + bias
        masked = jnp.where(before > 0, masked, 0.0)
    if "sums" in refs:
        accumulate(refs["sums"], 0, masked, lanes)
        accumulate(refs["sums"], 1, masked * x, lanes)
    return (masked if scale is None else masked * scale).astype(gradient.dtype)


def gather(lhs, ring, selector, plan: Plan, ring_row) -> None:
    """Writes the shifted and strided tile [rows, columns, images, channels] to `lhs`."""
    for row in range(plan.rows):
        for tile in plan.problem.lane_tiles:
            addresses = [plan.problem.gathered(offset, row) for offset in tile.offsets]
            lanes = slice(tile.start, tile.stop)
            read = partial(shifted_read, ring, ring_row, plan.gather_window, lanes)
            for columns in chunks(plan.problem.out_width, COLUMNS):
                lhs[row, columns.start : columns.stop, :, lanes] = select(
                    read, selector[:, lanes], addresses, columns
                )


def shifted_read(ring, ring_row, window: Window, lanes: slice, address, columns: range):
    """Reads what these output columns find at an address, or zeros: a shift is an address."""
    if address is None:
        return jnp.zeros((len(columns), ring.shape[3], lanes.stop - lanes.start), ring.dtype)
    start = window.left + address.column + columns.start
    return ring[ring_row(address.row), address.plane, pl.ds(start, len(columns)), :, lanes]


def select(read, selector, addresses, columns: range):
    """Returns [columns, images, lanes]: each channel from its own address, or zero."""
    first = None if None in addresses else addresses[0]
    result = read(first, columns)
    for index, address in enumerate(addresses):
        if address != first:
            result = jnp.where((selector == index)[None], read(address, columns), result)
    return result


def dot(a, b, contract: tuple[int, int] = (1, 0)):
    """Multiplies matrices in float32; float32 operands keep all their bits."""
    return lax.dot_general(
        a,
        b,
        (((contract[0],), (contract[1],)), ((), ())),
        precision=lax.Precision.HIGHEST if a.dtype == jnp.float32 else None,
        preferred_element_type=jnp.float32,
    )


def matrix(words, dtype):
    """Returns words [..., images, channels] as a matrix of pixels and channels."""
    return from_words(words.reshape(-1, words.shape[-1]), dtype)


def accumulate(sums, index: int, values, lanes: slice = slice(None)) -> None:
    """Adds [..., n] to eight partial sums of each channel, so that no sum crosses a register."""
    sums[0, index, :, lanes] += values.reshape(-1, 8, values.shape[-1]).sum(0)


def without_padding(y, stream: Stream, batch: int):
    """Returns y with zeros for the images that pad the last block."""
    block, _ = stream.leaving(pl.program_id(0), pl.program_id(1))
    images = y.shape[-2]
    image = block * images + lax.broadcasted_iota(jnp.int32, (images, 1), 0)
    return jnp.where(per_channel(image < batch, y), y, 0.0)


def chunks(size: int, step: int) -> list[range]:
    """Splits range(size) into parts of `step`; the last one may be shorter."""
    step = max(step, 1)
    return [range(start, min(start + step, size)) for start in range(0, size, step)]
