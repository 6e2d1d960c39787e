"""`shift_jax.data.pad_crop_flip` for batches of images that lie on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Bool, Int, UInt8


class Crops(NamedTuple):
    """The position of the crop of each image, and whether it is mirrored.

    Attributes:
      top, left: int32 [B], 0 .. 2 · pad, in the padded image.
      mirrored: bool [B], left to right.
    """

    top: Int[Array, " b"]
    left: Int[Array, " b"]
    mirrored: Bool[Array, " b"]


def draw_crops(key: Array, count: int, *, pad: int, flip: bool) -> Crops:
    """Draws uniform crops of `count` images, and mirrors half of them if `flip`."""
    place_key, flip_key = jax.random.split(key)
    top, left = jax.random.randint(place_key, (2, count), 0, 2 * pad + 1)
    mirrored = jax.random.bernoulli(flip_key, 0.5, (count,)) & flip
    return Crops(top, left, mirrored)


def take_crops(
    images: UInt8[Array, "n h w c"], chosen: Int[Array, " b"], crops: Crops, *, pad: int
) -> UInt8[Array, "b h w c"]:
    """Returns the crops of the chosen images.

    Pads with zeros BEFORE normalization, so that borders are black, as
    `shift_jax.data.pad_crop_flip` does.

    Args:
      images: uint8 [N, H, W, C], a whole dataset.
      chosen: int32 [B], indices of images.
      crops: the crop of each chosen image.
      pad: pixels of zeros on each side; a crop has the size of an image.
    """
    _, height, width, _ = images.shape
    rows = jnp.arange(height)[None] + (crops.top - pad)[:, None]
    columns = jnp.arange(width)[None]
    columns = jnp.where(crops.mirrored[:, None], width - 1 - columns, columns)
    columns = columns + (crops.left - pad)[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[
        :, None, :
    ]
    # Gathers only the pixels in the crops, without a padded copy of the images.
    found = images[
        chosen[:, None, None],
        jnp.clip(rows, 0, height - 1)[:, :, None],
        jnp.clip(columns, 0, width - 1)[:, None, :],
    ]
    return jnp.where(inside[..., None], found, jnp.zeros((), images.dtype))
