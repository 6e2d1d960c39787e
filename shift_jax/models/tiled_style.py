"""Style transformers for images that do not fit in memory: layer by layer, in tiles.

The result equals that of the whole image (`StyleTransformer.__call__`) up to rounding: nothing is
approximated, and there are no seams. Each convolution runs over tiles of the previous layer's whole
activations, which are in host memory or in a temporary file. Each tile is read with a halo as wide
as the convolution's reach. Only beyond the image's borders is the halo filled in: by reflection for
a convolution, with zeros for a shift. Each InstanceNorm uses the mean and variance of the whole
image, which follow from those of the tiles (Chan, Golub and LeVeque 1983, Eq. 2.1), before the next
convolution begins. So every layer is computed only once.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from shift_jax.errors import InputError, positive_int
from shift_jax.models.network import check_images
from shift_jax.models.style import (
    EPSILON,
    RESIDUAL_BLOCKS,
    SMALLEST_SIDE,
    StyleConv,
    StyleTransformer,
)
from shift_jax.models.tiles import Moments, Side
from shift_jax.ops.channels import per_channel

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, Shaped

MEMORY_BYTES = 2_500_000_000
"""Limit for all activations in memory at once; enough for 12 megapixels."""
TILE_SIZE = 256
"""In pixels; keeps the arrays of a tile below 100 megabytes."""
_STRIP_BYTES = 24_000_000  # From 32 MB on, malloc asks the system for every array.


def stylize_by_tiles(
    model: StyleTransformer,
    variables: Mapping[str, Any],
    image: Shaped[np.ndarray, "h w 3"],
    tile_size: int = TILE_SIZE,
    *,
    memory_bytes: int = MEMORY_BYTES,
    progress: Callable[[str], object] | None = None,
) -> Float[np.ndarray, "h_out w_out 3"]:
    """Returns `model.apply(variables, image[None])[0]` without holding all of it in memory.

    Args:
      model: a style transformer.
      variables: its variables.
      image: pixels in 0..255 of any dtype, both sides 5 or more.
      tile_size: largest side of a tile, in pixels of each layer's output.
      memory_bytes: activations beyond this limit go to temporary files in `tempfile.gettempdir()`,
        which need up to 192 bytes for each pixel of the image.
      progress: called with the name of each finished convolution.

    Returns:
      float32, the sides rounded up to the next multiple of 4.

    Raises:
      InputError: an image that does not fit the network, or a `tile_size` below 1.
      OSError: not enough disk space for a temporary file.
    """
    positive_int("tile_size", tile_size)
    check_images(image[None], smallest=SMALLEST_SIDE)
    if image.shape[2] != 3 or model.features_only:
        raise InputError(
            f"The image has {image.shape[2]} channels and features_only is {model.features_only}, "
            "expected an RGB image and a network that returns images."
        )
    params, convolutions = variables["params"], model.convolutions()
    scratch = _Scratch(memory_bytes)

    def layer(x: _Activations, name: str, relu: bool = True) -> _Activations:
        array, moments = _convolved(x, convolutions[name], params[name], tile_size, scratch)
        if progress is not None:
            progress(name)
        if f"{name}_norm" not in params:
            return _Activations(array)
        return _Activations(array, _norm(moments, params[f"{name}_norm"]), relu)

    x = _Activations(np.asarray(image))
    for name in ("down1", "down2", "down3"):
        x = layer(x, name)
    x = _finished(x, None, tile_size)
    for index in range(1, RESIDUAL_BLOCKS + 1):
        y = layer(x, f"residual{index}_conv1")
        y = layer(y, f"residual{index}_conv2", relu=False)
        x = _finished(y, x, tile_size)
    del y  # It would keep the memory of `x` alive during the next layers.
    for name in ("up1", "up2", "up3"):
        x = layer(x, name)
    return x.array.astype(np.float32, copy=False)


class _Norm(NamedTuple):
    """An InstanceNorm with known statistics; each field is float32 (C,)."""

    mean: np.ndarray
    multiplier: np.ndarray
    offset: np.ndarray


class _Activations(NamedTuple):
    """Activations of the whole image, and the norm and ReLU still to be applied to them."""

    array: np.ndarray
    """[H, W, C]."""
    norm: _Norm | None = None
    relu: bool = False


class _Scratch:
    """Allocates arrays for activations, in temporary files once the memory limit is reached."""

    def __init__(self, memory_bytes: int):
        self._free_bytes = memory_bytes

    def empty(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        """Returns an uninitialized array; its memory counts as free once nothing refers to it."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size <= self._free_bytes:
            array = np.empty(shape, dtype)
            self._take(size)
            weakref.finalize(array, self._take, -size)
            return array
        with tempfile.TemporaryFile(prefix="shift_jax_") as file:
            if hasattr(os, "posix_fallocate"):
                # Here a full disk raises an error; later, writing a page would kill the process.
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError as error:
                    error.filename = tempfile.gettempdir()
                    raise
            return np.memmap(file, dtype, "w+", shape=shape)

    def _take(self, size: int) -> None:
        self._free_bytes -= size


def _convolved(
    x: _Activations,
    arguments: Mapping[str, Any],
    params: Mapping[str, Any],
    tile_size: int,
    scratch: _Scratch,
) -> tuple[np.ndarray, Moments]:
    """Returns a convolution's output [H, W, C] for the whole image, and its moments."""
    down, across = (
        Side(
            length,
            arguments["kernel_size"],
            arguments["stride"],
            arguments["upsample"],
            reflect=not arguments["use_shift"],
            tile_size=tile_size,
        )
        for length in x.array.shape[:2]
    )
    convolution = StyleConv(**{**arguments, "upsample": 1, "pad": False})
    array, moments = None, Moments()
    for rows, columns in itertools.product(down.spans(), across.spans()):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        outputs, mean, squares = _tile(
            convolution,
            params,
            x.array[np.ix_(rows.positions, columns.positions)],
            x.norm,
            rows.inside[:, None] & columns.inside,
            (height, width),
            relu=x.relu,
            halo=down.halo,
            size=(down.tile, across.tile),
        )
        if array is None:
            shape = (down.output_length, across.output_length, outputs.shape[2])
            array = scratch.empty(shape, outputs.dtype)
        place = slice(rows.start, rows.stop), slice(columns.start, columns.stop)
        array[place] = np.asarray(outputs)[:height, :width]
        moments += Moments(
            height * width, np.asarray(mean, np.float64), np.asarray(squares, np.float64)
        )
    assert array is not None  # An image has at least one tile.
    return array, moments


@partial(jax.jit, static_argnames=("convolution", "relu", "halo", "size"))
def _tile(
    convolution: StyleConv,
    params: Mapping[str, Any],
    x: Array,
    norm: _Norm | None,
    inside: Array,
    counted: tuple[int, int],
    *,
    relu: bool,
    halo: int,
    size: tuple[int, int],
) -> tuple[Array, Array, Array]:
    """Returns one tile of a convolution's output, its mean and its sum of squared deviations."""
    x = _normalized(x, norm, relu)
    # After the norm: beyond the border a shift sees 0, not the norm of 0.
    x = jnp.where(inside[..., None], x, 0)
    y = _in_strips(partial(convolution.apply, {"params": params}), x, convolution, size, halo)
    rows, columns = (jnp.arange(n) < limit for n, limit in zip(size, counted, strict=True))
    mask = (rows[:, None] & columns[None])[..., None]
    wide = y.astype(jnp.promote_types(y.dtype, jnp.float32))
    mean = jnp.where(mask, wide, 0).sum((0, 1)) / (counted[0] * counted[1])
    deviations = wide - per_channel(mean, wide)
    squares = jnp.square(jnp.where(mask, deviations, 0)).sum((0, 1))
    return y, mean, squares


def _in_strips(
    convolve: Callable[[Array], Any],
    x: Array,
    convolution: StyleConv,
    size: tuple[int, int],
    halo: int,
) -> Array:
    """Returns a convolution's output [*size, C] for the tile `x`, which has its halo.

    On a CPU, XLA copies the window of each pixel before a convolution. For a whole tile the copies
    are several times as large as the tile, and their memory is allocated anew each time: on two
    cores that took longer than the convolution itself.
    """
    kernel_size, stride = convolution.kernel_size, convolution.stride
    if convolution.use_shift:
        # What the shift brings in from beyond the tile is all cropped here.
        return convolve(x[None])[0, halo : halo + size[0], halo : halo + size[1]]
    # A convolution has no padding here, so its halo need not be a multiple of the stride.
    skipped = halo * stride - kernel_size // 2
    x = x[skipped:, skipped:]
    window_bytes = 4 * kernel_size**2 * x.shape[-1]
    strips = -(-size[0] // max(1, _STRIP_BYTES // (window_bytes * size[1])))
    rows = -(-size[0] // strips)
    length = stride * (rows - 1) + kernel_size
    x = jnp.pad(x, [(0, stride * (strips - 1) * rows + length - x.shape[0]), (0, 0), (0, 0)])

    def strip(index: Array) -> Array:
        return convolve(jax.lax.dynamic_slice_in_dim(x, index * stride * rows, length)[None])[0]

    y = jax.lax.map(strip, jnp.arange(strips))
    return y.reshape(strips * rows, *y.shape[2:])[: size[0]]


def _finished(x: _Activations, residual: _Activations | None, tile_size: int) -> _Activations:
    """Applies the pending norm and ReLU of `x` and adds a residual, in place."""
    array = x.array
    rows = max(1, tile_size**2 // array.shape[1])
    for start in range(0, len(array), rows):
        strip = slice(start, start + rows)
        added = None if residual is None else residual.array[strip]
        array[strip] = _finished_strip(array[strip], x.norm, added, relu=x.relu)
    return _Activations(array)


@partial(jax.jit, static_argnames="relu")
def _finished_strip(x: Array, norm: _Norm, residual: Array | None, *, relu: bool) -> Array:
    y = _normalized(x, norm, relu).astype(x.dtype)
    return y if residual is None else residual + y


def _normalized(x: Array, norm: _Norm | None, relu: bool) -> Array:
    """Applies a pending norm and ReLU, in float32 or a wider dtype."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if norm is not None:
        mean, multiplier, offset = (per_channel(values, x) for values in norm)
        x = (x - mean) * multiplier + offset
    return jax.nn.relu(x) if relu else x


def _norm(moments: Moments, params: Mapping[str, Any]) -> _Norm:
    """Returns the InstanceNorm of an image with these moments."""
    variance = moments.squares / moments.count
    scale, offset = (np.asarray(params[name], np.float32) for name in ("scale", "bias"))
    multiplier = scale / np.sqrt(variance + EPSILON)
    return _Norm(np.asarray(moments.mean, np.float32), multiplier.astype(np.float32), offset)
