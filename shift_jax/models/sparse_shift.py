"""FE-Net, which learns sparse shifts (Sparse Shift Layer)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from shift_jax.errors import check_choice, positive_int
from shift_jax.layers import (
    Initializer,
    OffsetsInit,
    SparseShift,
    batch_norm,
    check_offsets_init,
    he_init,
)
from shift_jax.models.blocks import ConvNorm
from shift_jax.models.network import FeatureMap, Network, check_dropout, check_images, check_width
from shift_jax.models.registry import Count, ModelRecord, register

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

Reading = Literal["code", "paper"]

# Five stride-2 steps, the stem's included, must leave a pixel.
_SMALLEST = 31


class InvertedBottleneck(nn.Module):
    """1×1-BN-ReLU, a sparse shift or 2×2 average pooling, 1×1-BN.

    Attributes:
      features: output channels.
      middle: channels between the convolutions.
      pools: whether it pools instead of shifting.
      residual: whether the input is added.
      offsets_init: see `shift_jax.layers.ActiveShift`.
    """

    features: int
    middle: int
    pools: bool = False
    residual: bool = False
    offsets_init: OffsetsInit = "grid"
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = he_init

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False):
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(
            nn.Conv, kernel_size=(1, 1), use_bias=False, kernel_init=self.kernel_init, **types
        )
        y = nn.relu(batch_norm(train, name="norm1", **types)(conv(self.middle, name="conv1")(x)))
        if self.pools:
            y = nn.avg_pool(y, (2, 2), (2, 2))
        else:
            y = SparseShift(offsets_init=self.offsets_init, name="shift")(y)
        y = batch_norm(train, name="norm2", **types)(conv(self.features, name="conv2")(y))
        return x + y if self.residual else y


class FeatureEnhancementBlock(nn.Module):
    """Shifts ever more of the channels: the last 1/2ⁿ⁻¹ of them first, and n - 1 times.

    Attributes:
      features: output channels.
      levels: n; groups of 1/2, 1/4, … of the input's channels, the last one twice.
      expansion: E of all units.
      reading: which channels E multiplies, see `fe_net`.
      pools: whether the last unit pools.
      offsets_init: of all shifts.
    """

    features: int
    levels: int
    pools: bool
    expansion: int = 6
    reading: Reading = "code"
    offsets_init: OffsetsInit = "grid"
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = he_init

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False):
        unit = partial(
            InvertedBottleneck,
            offsets_init=self.offsets_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            kernel_init=self.kernel_init,
        )
        channels = x.shape[-1]
        edges = [channels - channels // 2**level for level in range(1, self.levels)]
        *groups, y = jnp.split(x, edges, axis=-1)
        for index, group in enumerate(reversed(groups), start=1):
            width = y.shape[-1]
            middle, name = self.expansion * width, f"resibssl_{index}"
            y = unit(width, middle, residual=True, name=name)(y, train)
            y = jnp.concatenate([group, y], axis=-1)
        reference = self.features if self.reading == "code" else channels
        name = "ibpool" if self.pools else "ibssl"
        return unit(self.features, self.expansion * reference, self.pools, name=name)(y, train)


class FENet(Network, kw_only=True):
    """3×3 stem of stride 2, a shift, a pooling, five `FeatureEnhancementBlock`, a wide 1×1 layer.

    Attributes:
      channels: c of the stem.
      head: features of the last 1×1 convolution.
      dropout: rate before the classifier.
      reading: see `fe_net`.
      offsets_init: of all shifts.
    """

    channels: int = 16
    head: int = 1932
    dropout: float = 0.2
    reading: Reading = "code"
    offsets_init: OffsetsInit = "grid"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"] | tuple[FeatureMap, ...]:
        check_images(x, _SMALLEST)
        c, common = self.channels, {"offsets_init": self.offsets_init, **self.common}
        x = ConvNorm(c, 3, 2, activation=None, name="stem", **self.common)(x, train)
        x = InvertedBottleneck(c, 4 * c, name="ibssl", **common)(x, train)
        maps = [FeatureMap("stem", 2, x)]
        middle = 5 * (2 * c if self.reading == "code" else c)
        x = InvertedBottleneck(2 * c, middle, pools=True, name="ibpool", **common)(x, train)
        maps.append(FeatureMap("ibpool", 4, x))
        blocks = ((4, 3, True), (8, 4, True), (8, 4, False), (16, 4, True), (16, 3, False))
        for index, (width, levels, pools) in enumerate(blocks, start=1):
            name, stride = f"feblock{index}", maps[-1].stride * (2 if pools else 1)
            block = FeatureEnhancementBlock(
                width * c, levels, pools, reading=self.reading, name=name, **common
            )
            x = block(x, train)
            maps.append(FeatureMap(name, stride, x))
        if self.features_only:
            return tuple(maps)
        x = ConvNorm(self.head, name="head", **self.common)(x, train).mean(axis=(1, 2))
        return self.classify(nn.Dropout(self.dropout, deterministic=not train)(x))


def fe_net(
    *,
    width: float = 1.0,
    reading: Reading = "code",
    head: int = 1932,
    dropout: float = 0.2,
    offsets_init: OffsetsInit = "grid",
    **common,
) -> FENet:
    """FE-Net of Chen et al. 2019, whose shifts are rounded and learned (Sparse Shift Layer).

    The paper prints 3.7 M parameters and 301 M MACs for width 1, 5.9 M and 563 M for width 1.375.
    Those of 1.375 are the ones of `reading="paper"`. The authors' code, whose accuracies their
    README prints, makes wider hidden layers. Parameters, those of the shifts included, and MACs at
    224×224, of the code: 4,623,408 and 417,941,216; 6,745,470 and 773,159,072 for width 1.375. Of
    the paper, width 1.375: 6,002,486 and 563,699,360; `head=1380`, width 1: 3,535,232 and
    299,676,320.

    Args:
      width: factor of all channels but the head's; int(16 · width) of the stem.
      reading: "code" multiplies the output channels of a unit by its expansion, "paper" the input
        channels.
      head: features of the last 1×1 convolution.
      dropout: rate before the classifier.
      offsets_init: "grid", the 3×3 offsets of the Shift paper, or "uniform" within ±1 pixel. The
        authors' code has fractions instead of the grid under Python 3, and then rounds some to 2.
      **common: `num_classes` and the other attributes of `shift_jax.models.network.Network`.
    """
    check_width(width, 16)
    check_choice("reading", reading, ("code", "paper"))
    check_dropout(dropout)
    return FENet(
        channels=int(16 * width),
        head=positive_int("head", head),
        dropout=dropout,
        reading=reading,
        offsets_init=check_offsets_init(offsets_init),
        **common,
    )


register(
    ModelRecord(
        "fe_net",
        fe_net,
        paper="Chen et al. 2019, arXiv:1903.05285",
        counts=(
            Count({}, 4623408, 417941216),
            Count({"width": 1.375}, 6745470, 773159072),
            Count({"width": 1.375, "reading": "paper"}, 6002486, 563699360),
            Count({"reading": "paper", "head": 1380}, 3535232, 299676320),
        ),
    )
)
