"""AS-ResNet, which learns its shifts (Active Shift), for ImageNet and CIFAR."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp

from shift_jax.errors import positive_int
from shift_jax.layers import (
    ActiveShift,
    Initializer,
    OffsetsInit,
    batch_norm,
    check_offsets_init,
    he_init,
    middle_channels,
)
from shift_jax.models.active_shift_caffe import MEAN, STD, caffe_layout
from shift_jax.models.network import FeatureMap, Network, check_images
from shift_jax.models.registry import Count, ModelRecord, register

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


class ActiveShiftBlock(nn.Module):
    """BN-ReLU-1×1-BN-ReLU-shift(stride)-1×1, added to the input.

    Where the shape changes, a strided 1×1 convolution of the activated input is added instead.

    Attributes:
      features: output channels.
      stride: of the shift.
      expansion: E; the middle has int(E · features) channels.
      offsets_init: see `ActiveShift`.
    """

    features: int
    stride: int = 1
    expansion: float = 1
    offsets_init: OffsetsInit = "uniform"
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = he_init

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False):
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(nn.Conv, use_bias=False, kernel_init=self.kernel_init, **types)
        y = nn.relu(batch_norm(train, name="norm1", **types)(x))
        if self.stride > 1 or x.shape[-1] != self.features:
            x = conv(self.features, (1, 1), (self.stride,) * 2, name="conv_shortcut")(y)
        y = conv(middle_channels(self.expansion, self.features), (1, 1), name="conv1")(y)
        y = nn.relu(batch_norm(train, name="norm2", **types)(y))
        y = ActiveShift(self.stride, self.offsets_init, name="shift")(y)
        return x + conv(self.features, (1, 1), name="conv2")(y)


class ActiveShiftResNet(Network, kw_only=True):
    """3×3 stem, groups of blocks that double the width, BN, ReLU, average pooling, classifier.

    Attributes:
      width: channels of the stem and of the first group.
      stem_stride: of the 3×3 convolution.
      groups: number of blocks in each group.
      strides: of each group's first block.
      stem_block: whether one more block precedes the groups.
      expansion, offsets_init: of all blocks.
    """

    width: int
    stem_stride: int
    groups: tuple[int, ...]
    strides: tuple[int, ...]
    stem_block: bool = False
    expansion: float = 1
    offsets_init: OffsetsInit = "uniform"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"] | tuple[FeatureMap, ...]:
        check_images(x)
        block = partial(
            ActiveShiftBlock,
            expansion=self.expansion,
            offsets_init=self.offsets_init,
            **self.common,
        )
        stride = self.stem_stride
        x = nn.Conv(
            self.width,
            (3, 3),
            (stride, stride),
            padding=1,
            use_bias=False,
            name="stem",
            **self.common,
        )(x)
        if self.stem_block:
            x = block(self.width, name="group0_block1")(x, train)
        maps = [FeatureMap("stem", stride, x)]
        for group, (blocks, first) in enumerate(zip(self.groups, self.strides, strict=True), 1):
            features, stride = self.width * 2 ** (group - 1), stride * first
            for index in range(1, blocks + 1):
                name = f"group{group}_block{index}"
                x = block(features, first if index == 1 else 1, name=name)(x, train)
            maps.append(FeatureMap(f"group{group}", stride, x))
        if self.features_only:
            return tuple(maps)
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = nn.relu(batch_norm(train, name="norm", **types)(x))
        return self.classify(x.mean(axis=(1, 2)))


def as_resnet(
    *, width: int = 32, offsets_init: OffsetsInit = "uniform", **common
) -> ActiveShiftResNet:
    """AS-ResNet for ImageNet: pre-activation blocks that each learn one shift.

    A 3×3 stem of stride 2 and one block, then 3, 4, 6 and 3 blocks of `width`, 2, 4 and 8 times as
    many channels, whose first has stride 2. Parameters, those of the shifts included, and MACs at
    224×224 for width 32, 50 and 68: 901,256 and 166,840,320; 1,962,950 and 397,574,400; 3,424,460
    and 726,866,688.

    Args:
      width: channels of the stem.
      offsets_init: "uniform" within ±1 pixel, or "grid", the Shift paper's 3×3 offsets.
      **common: `num_classes` and the other attributes of `shift_jax.models.network.Network`.
    """
    return ActiveShiftResNet(
        width=positive_int("width", width),
        stem_stride=2,
        stem_block=True,
        groups=(3, 4, 6, 3),
        strides=(2, 2, 2, 2),
        offsets_init=check_offsets_init(offsets_init),
        **common,
    )


def as_resnet_cifar(
    *,
    width: int = 16,
    expansion: float = 1,
    offsets_init: OffsetsInit = "uniform",
    **common,
) -> ActiveShiftResNet:
    """AS-ResNet for CIFAR: three groups of three blocks, ShiftResNet20 with learned shifts.

    Parameters for 10 classes, those of the shifts included, and MACs at 32×32 for width 16 and
    E = 1, 3, 6, 9: 35,386 and 5,948,032; 97,466 and 16,433,792; 190,586 and 32,162,432; 283,706
    and 47,891,072. For width 46 and 88: 275,596 and 46,776,112; 992,914 and 168,963,520.

    Args:
      width: channels of the stem and the first group.
      expansion: E, fractions allowed; the middle of each block has int(E · out) channels.
      offsets_init: as for `as_resnet`.
      **common: as for `as_resnet`.
    """
    middle_channels(expansion, positive_int("width", width))  # Raises here, not at the first use.
    return ActiveShiftResNet(
        width=width,
        stem_stride=1,
        groups=(3, 3, 3),
        strides=(1, 2, 2),
        expansion=expansion,
        offsets_init=check_offsets_init(offsets_init),
        **common,
    )


_PAPER = "Jeon & Kim 2018, arXiv:1806.07370"

register(
    ModelRecord(
        "as_resnet",
        as_resnet,
        paper=_PAPER,
        counts=(
            Count({}, 901256, 166840320),
            Count({"width": 50}, 1962950, 397574400),
            Count({"width": 68}, 3424460, 726866688),
        ),
        mean=MEAN,
        std=STD,
        caffe_layout=caffe_layout,
    )
)
register(
    ModelRecord(
        "as_resnet_cifar",
        as_resnet_cifar,
        paper=_PAPER,
        counts=(
            Count({}, 35386, 5948032),
            Count({"expansion": 3}, 97466, 16433792),
            Count({"expansion": 6}, 190586, 32162432),
            Count({"expansion": 9}, 283706, 47891072),
            Count({"width": 46}, 275596, 46776112),
            Count({"width": 88}, 992914, 168963520),
        ),
        image_shape=(32, 32, 3),
        num_classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        crop=1.0,
    )
)
