"""Trained style transformers for photos of any size, and those that come with the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from shift_jax.errors import InputError, did_you_mean
from shift_jax.models.pretrained import load_pretrained
from shift_jax.models.style import StyleTransformer
from shift_jax.models.tiled_style import TILE_SIZE, stylize_by_tiles
from shift_jax.weights.shipped import list_pretrained

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import UInt8

MARGIN = 32
"""Pixels by which a photo is extended on all sides; the output is cropped by as many."""
_SHIPPED = "shift_style_transformer"
# In pixels. By tiles, a CPU needs half the time; whole, a megapixel needs 2.1 GB of memory.
_LARGEST_WHOLE = {"cpu": 65_536}
_LARGEST_WHOLE_ELSEWHERE = 1_000_000


class Stylizer:
    """A trained style transformer, for photos of any size.

    Args:
      model: a style transformer.
      variables: its variables.
      tile_size: photos with a side longer than this are processed in tiles of this size; 0 uses
        tiles of 256 for photos of more than 65,536 pixels on CPUs, or a megapixel elsewhere.

    Attributes:
      layers: number of calls of `progress` for a photo that is processed in tiles.
    """

    def __init__(self, model: StyleTransformer, variables: Mapping[str, Any], tile_size: int = 0):
        self._model = model
        self._variables = jax.tree.map(np.asarray, variables)
        self._tile_size = tile_size
        self.layers = len(model.convolutions())

    def __call__(
        self, pixels: UInt8[np.ndarray, "h w 3"], progress: Callable[[str], object] | None = None
    ) -> UInt8[np.ndarray, "h w 3"]:
        """Returns the photo in the network's style.

        The network sees the photo reflected by `MARGIN` pixels at its borders: where shifts bring
        in zeros, shift networks paint stripes and rings. Johnson et al. also extended photos, by 40
        pixels.

        Args:
          pixels: RGB.
          progress: called with the name of each finished layer if the photo is tiled.

        Raises:
          InputError: the network's colors are not finite.
        """
        height, width = pixels.shape[:2]
        image = np.pad(pixels, [(MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0)], mode="symmetric")
        if self.takes_whole(height, width):
            output = _whole(self._model, self._variables, image[None].astype(np.float32))
            output = np.asarray(output)[0]
        else:
            size = self._tile_size or TILE_SIZE
            output = stylize_by_tiles(self._model, self._variables, image, size, progress=progress)
        output = output[MARGIN : MARGIN + height, MARGIN : MARGIN + width]
        if not np.isfinite(output).all():
            raise InputError(
                "The network paints colors that are not finite, so its training must have failed: "
                "use an earlier checkpoint, or train it again."
            )
        return np.rint(output).clip(0, 255).astype(np.uint8)

    def takes_whole(self, height: int, width: int) -> bool:
        """Whether a photo of this size is processed as a whole, without tiles."""
        if self._tile_size:
            return max(height, width) <= self._tile_size
        limit = _LARGEST_WHOLE.get(jax.default_backend(), _LARGEST_WHOLE_ELSEWHERE)
        return height * width <= limit


def style_names() -> list[str]:
    """Returns the names of the styles that come with the package."""
    return [name.split(".", 1)[1] for name in list_pretrained(f"{_SHIPPED}.*")]


def load_style(name: str, tile_size: int = 0) -> Stylizer:
    """Returns a style that comes with the package; InputError for an unknown name lists them."""
    names = style_names()
    if name not in names:
        raise InputError(
            f"There is no style {name!r}, expected one of {', '.join(names)}."
            f"{did_you_mean(name, names)}"
        )
    model, variables = load_pretrained(_SHIPPED, tag=name)
    assert isinstance(model, StyleTransformer)
    return Stylizer(model, variables, tile_size)


# Compiled once for each size, whatever the weights.
@partial(jax.jit, static_argnames="model")
def _whole(model: StyleTransformer, variables: Mapping[str, Any], images: Array) -> Array:
    return model.apply(variables, images)
