"""MobileNet v1 (Table 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn

from shift_jax.models.blocks import ConvNorm
from shift_jax.models.network import FeatureMap, Network, check_images, check_width
from shift_jax.models.registry import Count, ModelRecord, register

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

# Output channels (at width 1) and stride of each depthwise separable convolution.
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *[(512, 1)] * 5,
    (1024, 2),
    (1024, 1),
)


class MobileNet(Network, kw_only=True):
    """3×3 stem of stride 2, thirteen depthwise separable convolutions, average pooling.

    Attributes:
      width: factor of all channels.
    """

    width: float = 1.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"] | tuple[FeatureMap, ...]:
        check_images(x)
        x = ConvNorm(int(32 * self.width), 3, 2, name="stem", **self.common)(x, train)
        maps, total_stride = [], 2
        for index, (channels, stride) in enumerate(_BLOCKS, start=1):
            if stride > 1:
                maps.append(FeatureMap(f"stage{len(maps) + 1}", total_stride, x))
            total_stride *= stride
            features = x.shape[-1]
            name = f"block{index}_depthwise"
            x = ConvNorm(features, 3, stride, groups=features, name=name, **self.common)(x, train)
            name = f"block{index}_pointwise"
            x = ConvNorm(int(channels * self.width), name=name, **self.common)(x, train)
        if self.features_only:
            return (*maps, FeatureMap(f"stage{len(maps) + 1}", total_stride, x))
        return self.classify(x.mean(axis=(1, 2)))


def mobilenet(*, width: float = 1.0, **common) -> MobileNet:
    """MobileNet v1 of Howard et al. 2017 (Table 7).

    Parameters and MACs at 224×224 for width 1 and ½: 4,231,976 and 568,740,352; 1,331,592 and
    149,497,088.

    Args:
      width: factor of all channels, at least 1/32.
      **common: `num_classes` and the other attributes of `shift_jax.models.network.Network`.
    """
    check_width(width, 32)
    return MobileNet(width=width, **common)


register(
    ModelRecord(
        "mobilenet",
        mobilenet,
        paper="Howard et al. 2017, arXiv:1704.04861",
        table="Table 7",
        counts=(
            Count({}, 4231976, 568740352),
            Count({"width": 0.5}, 1331592, 149497088),
        ),
    )
)
