"""VGG-16 and VGG-19 (Table 7, and the perceptual loss of style transfer)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn

from shift_jax.errors import positive_int
from shift_jax.models.blocks import ConvNorm, adaptive_avg_pool, max_pool
from shift_jax.models.network import FeatureMap, Network, check_dropout, check_images
from shift_jax.models.registry import Count, ModelRecord, register
from shift_jax.weights.convert import Reorder, TensorLayout
from shift_jax.weights.torch.layout import TorchLayout

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

WIDTHS = (64, 128, 256, 512, 512)
"""Channels of the convolutions of each block."""
CONVOLUTIONS = {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
"""Convolutions of each block, by the depth."""
# Keras's weights come from Caffe, whose input is BGR pixels in 0..255 minus these means (of RGB).
_KERAS_MEAN = (123.68, 116.779, 103.939)


class VGG(Network, kw_only=True):
    """Five blocks of 3×3 convolutions and max pooling, two hidden layers, classifier.

    Maps of images that are not 224×224 are pooled to 7×7 before the hidden layers, as in
    torchvision. The feature maps are those before the pooling of each block.

    Attributes:
      convolutions: number of convolutions of each block; their names are `block1_conv1` and so on.
      hidden_features: width of the two hidden layers.
      dropout: rate after each hidden layer in training, which needs the RNG "dropout".
    """

    convolutions: tuple[int, ...]
    hidden_features: int = 4096
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"] | tuple[FeatureMap, ...]:
        check_images(x, smallest=32)
        maps = []
        for block, (features, count) in enumerate(
            zip(WIDTHS, self.convolutions, strict=True), start=1
        ):
            for index in range(1, count + 1):
                name = f"block{block}_conv{index}"
                x = ConvNorm(features, 3, norm=None, name=name, **self.common)(x)
            maps.append(FeatureMap(f"block{block}", 2 ** (block - 1), x))
            x = max_pool(x, 2, 2)
        if self.features_only:
            return tuple(maps)
        x = adaptive_avg_pool(x, 7)
        x = self.hidden_layers(x, self.hidden_features, self.dropout, train)
        return self.classify(x)


def vgg(depth: int, *, hidden_features: int = 4096, dropout: float = 0.5, **common) -> VGG:
    """VGG of Simonyan and Zisserman 2015, configurations D (Table 7) and E, without BatchNorm.

    Parameters and MACs at 224×224: VGG-16 138,357,544 and 15,470,264,320; VGG-19 143,667,240 and
    19,632,062,464.

    Args:
      depth: 16 or 19.
      hidden_features, dropout: see `VGG`.
      **common: `num_classes` and the other attributes of `shift_jax.models.network.Network`.
    """
    check_dropout(dropout)
    return VGG(
        convolutions=CONVOLUTIONS[depth],
        hidden_features=positive_int("hidden_features", hidden_features),
        dropout=dropout,
        **common,
    )


def torch_layout(depth: int, arguments: Mapping[str, Any]) -> TorchLayout:
    """Returns torchvision's layout of VGG-16 or VGG-19 without BatchNorm."""
    names = {"hidden1": "classifier.0", "hidden2": "classifier.3", "classifier": "classifier.6"}
    position = 0  # In the sequence of convolutions, ReLUs and poolings.
    for block, count in enumerate(CONVOLUTIONS[depth], start=1):
        for index in range(1, count + 1):
            names[f"block{block}_conv{index}/conv"] = f"features.{position}"
            position += 2
        position += 1
    return TorchLayout("torchvision", names.__getitem__, flattened=(("classifier.0", (512, 7, 7)),))


def keras_layout() -> TensorLayout:
    """Returns the layout of Keras's tensors, named as `block1_conv1.kernel`, `fc1.bias`.

    Keras's networks read BGR pixels; reversing the input channels of the first kernel makes them
    read RGB pixels.
    """
    names = {"hidden1": "fc1", "hidden2": "fc2", "classifier": "predictions"}

    def tensor(module: str, leaf: str) -> tuple[str, Reorder]:
        name = names.get(module, module.removesuffix("/conv"))
        if (name, leaf) == ("block1_conv1", "kernel"):
            return f"{name}.{leaf}", lambda array: array[..., ::-1, :]
        return f"{name}.{leaf}", lambda array: array

    mean = tuple(value / 255 for value in _KERAS_MEAN)
    return TensorLayout("Keras", tensor, mean=mean, std=(1 / 255,) * 3)


for _depth, _table, _count in (
    (16, "Table 7", Count({}, 138357544, 15470264320)),
    (19, "", Count({}, 143667240, 19632062464)),
):
    register(
        ModelRecord(
            f"vgg{_depth}",
            partial(vgg, _depth),
            paper="Simonyan and Zisserman 2015, arXiv:1409.1556",
            table=_table,
            counts=(_count,),
            torch_layout=partial(torch_layout, _depth),
            keras_layout=keras_layout,
        )
    )
