"""GoogLeNet (Table 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from shift_jax.layers import Initializer, he_init
from shift_jax.models.blocks import ConvNorm, local_response_norm, max_pool
from shift_jax.models.network import FeatureMap, Network, check_dropout, check_images
from shift_jax.models.registry import Count, ModelRecord, register

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


class Widths(NamedTuple):
    """Channels of one Inception module, as in the columns of the GoogLeNet paper's Table 1."""

    conv1: int
    reduce3: int
    conv3: int
    reduce5: int
    conv5: int
    pool: int


_STAGES = {
    "inception3": (Widths(64, 96, 128, 16, 32, 32), Widths(128, 128, 192, 32, 96, 64)),
    "inception4": (
        Widths(192, 96, 208, 16, 48, 64),
        Widths(160, 112, 224, 24, 64, 64),
        Widths(128, 128, 256, 24, 64, 64),
        Widths(112, 144, 288, 32, 64, 64),
        Widths(256, 160, 320, 32, 128, 128),
    ),
    "inception5": (Widths(256, 160, 320, 32, 128, 128), Widths(384, 192, 384, 48, 128, 128)),
}


class Inception(nn.Module):
    """Parallel 1×1, 3×3 and 5×5 convolutions and max pooling, the last three with a 1×1 each."""

    widths: Widths
    kernel_init: Initializer = he_init
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]:
        def conv(x, features, kernel_size, name):
            return ConvNorm(
                features,
                kernel_size,
                norm=None,
                kernel_init=self.kernel_init,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=name,
            )(x)

        widths = self.widths
        branches = [
            conv(x, widths.conv1, 1, "conv1"),
            conv(conv(x, widths.reduce3, 1, "reduce3"), widths.conv3, 3, "conv3"),
            conv(conv(x, widths.reduce5, 1, "reduce5"), widths.conv5, 5, "conv5"),
            conv(max_pool(x, 3, 1, padding=1), widths.pool, 1, "pool"),
        ]
        return jnp.concatenate(branches, axis=-1)


class GoogLeNet(Network, kw_only=True):
    """Stem of three convolutions, nine Inception modules in three stages, average pooling.

    Attributes:
      dropout: rate before the classifier in training, which needs the RNG "dropout".
    """

    dropout: float = 0.4

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"] | tuple[FeatureMap, ...]:
        check_images(x, smallest=15)
        conv1 = ConvNorm(64, 7, 2, norm=None, name="conv1", **self.common)(x)
        x = local_response_norm(max_pool(conv1, 3, 2, ceil=True))
        x = ConvNorm(64, 1, norm=None, name="reduce2", **self.common)(x)
        conv2 = ConvNorm(192, 3, norm=None, name="conv2", **self.common)(x)
        x = local_response_norm(conv2)
        maps = [FeatureMap("conv1", 2, conv1), FeatureMap("conv2", 4, conv2)]
        for stage, modules in _STAGES.items():
            x = max_pool(x, 3, 2, ceil=True)
            for letter, widths in zip("abcde", modules, strict=False):
                x = Inception(widths, name=f"{stage}{letter}", **self.common)(x)
            maps.append(FeatureMap(stage, 2 * maps[-1].stride, x))
        if self.features_only:
            return tuple(maps)
        x = nn.Dropout(self.dropout, deterministic=not train)(x.mean(axis=(1, 2)))
        return self.classify(x)


def googlenet(*, dropout: float = 0.4, **common) -> GoogLeNet:
    """GoogLeNet of Szegedy et al. 2015 (Table 7), without auxiliary classifiers or BatchNorm.

    6,998,552 parameters and 1,582,671,872 MACs at 224×224.

    Args:
      dropout: see `GoogLeNet`.
      **common: `num_classes` and the other attributes of `shift_jax.models.network.Network`.
    """
    check_dropout(dropout)
    return GoogLeNet(dropout=dropout, **common)


register(
    ModelRecord(
        "googlenet",
        googlenet,
        paper="Szegedy et al. 2015, arXiv:1409.4842",
        table="Table 7",
        counts=(Count({}, 6998552, 1582671872),),
    )
)
