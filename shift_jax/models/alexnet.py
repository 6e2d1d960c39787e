"""AlexNet (Table 7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import flax.linen as nn

from shift_jax.errors import positive_int
from shift_jax.models.blocks import ConvNorm, adaptive_avg_pool, local_response_norm, max_pool
from shift_jax.models.network import FeatureMap, Network, check_dropout, check_images
from shift_jax.models.registry import Count, ModelRecord, register

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


class AlexNet(Network, kw_only=True):
    """Five convolutions, three of them in two groups, two hidden layers, classifier.

    The input is padded by 2, so that 224×224 images give the 55×55 maps of Caffe's 227×227 images.
    Maps of images of other sizes are pooled to 6×6 before the hidden layers.

    Attributes:
      hidden_features: width of the two hidden layers.
      dropout: rate after each hidden layer in training, which needs the RNG "dropout".
    """

    hidden_features: int = 4096
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"] | tuple[FeatureMap, ...]:
        check_images(x, smallest=63)

        def conv(x, number, features, kernel_size, **kwargs):
            name = f"conv{number}"
            return ConvNorm(features, kernel_size, norm=None, name=name, **kwargs, **self.common)(x)

        conv1 = conv(x, 1, 96, 11, stride=4, padding=2)
        x = max_pool(local_response_norm(conv1), 3, 2)
        conv2 = conv(x, 2, 256, 5, groups=2)
        x = max_pool(local_response_norm(conv2), 3, 2)
        x = conv(x, 3, 384, 3)
        x = conv(x, 4, 384, 3, groups=2)
        conv5 = conv(x, 5, 256, 3, groups=2)
        if self.features_only:
            maps = (("conv1", 4, conv1), ("conv2", 8, conv2), ("conv5", 16, conv5))
            return tuple(FeatureMap(*each) for each in maps)
        x = adaptive_avg_pool(max_pool(conv5, 3, 2), 6)
        x = self.hidden_layers(x, self.hidden_features, self.dropout, train)
        return self.classify(x)


def alexnet(*, hidden_features: int = 4096, dropout: float = 0.5, **common) -> AlexNet:
    """AlexNet of Krizhevsky et al. 2012 (Table 7) as in Caffe: grouped, with response norms.

    60,965,224 parameters and 724,406,816 MACs at 224×224.

    Args:
      hidden_features, dropout: see `AlexNet`.
      **common: `num_classes` and the other attributes of `shift_jax.models.network.Network`.
    """
    check_dropout(dropout)
    hidden_features = positive_int("hidden_features", hidden_features)
    return AlexNet(hidden_features=hidden_features, dropout=dropout, **common)


register(
    ModelRecord(
        "alexnet",
        alexnet,
        paper="Krizhevsky et al., NIPS 2012",
        table="Table 7",
        counts=(Count({}, 60965224, 724406816),),
    )
)
