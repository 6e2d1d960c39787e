"""ShuffleNet 2× with three groups (Table 7)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp

from shift_jax.layers import Initializer, he_init
from shift_jax.models.blocks import ConvNorm, max_pool
from shift_jax.models.network import FeatureMap, Network, check_images
from shift_jax.models.registry import Count, ModelRecord, register

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

_GROUPS = 3
# Output channels and number of units of the three stages.
_STAGES = ((480, 4), (960, 8), (1920, 4))


class ShuffleUnit(nn.Module):
    """Grouped 1×1-BN-ReLU, channel shuffle, depthwise 3×3-BN, grouped 1×1-BN, shortcut, ReLU.

    A strided unit computes `features - in` channels and concatenates the average-pooled input.

    Attributes:
      features: number of output channels; the bottleneck has a quarter as many.
      stride: of the depthwise convolution.
      first_groups: groups of the first 1×1 convolution.
    """

    features: int
    stride: int = 1
    first_groups: int = _GROUPS
    kernel_init: Initializer = he_init
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False):
        conv = partial(
            ConvNorm,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        middle = self.features // 4
        y = conv(middle, groups=self.first_groups, name="conv1")(x, train)
        y = shuffle_channels(y, _GROUPS)
        y = conv(middle, 3, self.stride, groups=middle, activation=None, name="depthwise")(y, train)
        features = self.features if self.stride == 1 else self.features - x.shape[-1]
        y = conv(features, groups=_GROUPS, activation=None, name="conv2")(y, train)
        if self.stride == 1:
            return nn.relu(x + y)
        window, strides, padding = (3, 3), (self.stride,) * 2, [(1, 1), (1, 1)]
        # Flax takes pairs, too, which its annotation forgets.
        pooled = nn.avg_pool(x, window, strides, padding)  # pyright: ignore[reportArgumentType]
        return nn.relu(jnp.concatenate([pooled, y], axis=-1))


class ShuffleNet(Network):
    """3×3 stem of stride 2, max pooling, three stages of units, average pooling."""

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"] | tuple[FeatureMap, ...]:
        check_images(x)
        x = ConvNorm(48, 3, 2, name="stem", **self.common)(x, train)
        maps = [FeatureMap("stem", 2, x)]
        x = max_pool(x, 3, 2, padding=1)
        for stage, (features, units) in enumerate(_STAGES, start=2):
            for index in range(1, units + 1):
                x = ShuffleUnit(
                    features,
                    stride=2 if index == 1 else 1,
                    first_groups=1 if stage == 2 and index == 1 else _GROUPS,
                    name=f"stage{stage}_unit{index}",
                    **self.common,
                )(x, train)
            maps.append(FeatureMap(f"stage{stage}", 2 ** (stage + 1), x))
        if self.features_only:
            return tuple(maps)
        return self.classify(x.mean(axis=(1, 2)))


def shuffle_channels(x: Float[Array, "b h w c"], groups: int) -> Float[Array, "b h w c"]:
    """Interleaves the channels of the groups, so that the next grouped layer sees all groups."""
    *space, channels = x.shape
    x = x.reshape(*space, groups, channels // groups)
    return x.swapaxes(-1, -2).reshape(*space, channels)


def shufflenet(**common) -> ShuffleNet:
    """ShuffleNet 2×, g = 3, of Zhang et al. 2018 (Table 7).

    5,450,776 parameters and 524,045,184 MACs at 224×224. The stem has 48 channels, and the first
    1×1 convolution of stage 2 is not grouped. Table 7 estimates 5.6 M parameters; they would be
    5,647,672 if the path of a strided unit had all output channels.

    Args:
      **common: `num_classes` and the other attributes of `shift_jax.models.network.Network`.
    """
    return ShuffleNet(**common)


register(
    ModelRecord(
        "shufflenet",
        shufflenet,
        paper="Zhang et al. 2018, arXiv:1707.01083",
        table="Table 7",
        counts=(Count({}, 5450776, 524045184),),
    )
)
