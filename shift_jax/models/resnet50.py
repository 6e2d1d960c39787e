"""ResNet-50 and ShiftResNet50 for ImageNet, at three widths (Tables 3 and 7)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn

from shift_jax.layers import CSC, OffsetsInit, ShiftKind, middle_channels
from shift_jax.models.blocks import ConvNorm, ShiftModule, max_pool, shift_module
from shift_jax.models.network import FeatureMap, Network, check_images, check_width
from shift_jax.models.registry import Count, ModelRecord, register
from shift_jax.models.residual_blocks import Bottleneck, torch_block_names
from shift_jax.weights.torch.layout import TorchLayout

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


class ResNet50(Network, kw_only=True):
    """7×7 stem of stride 2, 3×3 max pooling, four groups of bottlenecks, average pooling.

    Attributes:
      planes: channels inside the bottlenecks of each group; the stem has as many as the first.
      blocks: number of bottlenecks of each group.
      middle: of the bottlenecks, see `Bottleneck`.
    """

    planes: tuple[int, int, int, int] = (64, 128, 256, 512)
    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    middle: Callable[..., CSC] | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"] | tuple[FeatureMap, ...]:
        check_images(x)
        x = ConvNorm(self.planes[0], 7, 2, name="stem", **self.common)(x, train)
        maps = [FeatureMap("stem", 2, x)]
        x = max_pool(x, 3, 2, padding=1)
        groups = zip(self.planes, self.blocks, strict=True)
        for group, (planes, blocks) in enumerate(groups, start=1):
            for index in range(1, blocks + 1):
                x = Bottleneck(
                    planes,
                    stride=2 if group > 1 and index == 1 else 1,
                    middle=self.middle,
                    name=f"group{group}_block{index}",
                    **self.common,
                )(x, train)
            maps.append(FeatureMap(f"group{group}", 2 ** (group + 1), x))
        if self.features_only:
            return tuple(maps)
        return self.classify(x.mean(axis=(1, 2)))


def resnet50(*, width: float = 1.0, **common) -> ResNet50:
    """ResNet-50 of He et al. 2016 (Table 3), with the stride in the 3×3 convolutions.

    Parameters and MACs at 224×224 for width 1, √½ and ½: 25,557,032 and 4,089,184,256;
    13,203,719 and 2,058,656,356; 6,917,640 and 1,052,311,552.

    Args:
      width: factor of all channels, the stem's included: int(64 · width), int(128 · width) and so
        on.
      **common: `num_classes` and the other attributes of `shift_jax.models.network.Network`.
    """
    return ResNet50(planes=_planes(width), **common)


def shiftresnet50(
    *,
    width: float = 1.0,
    expansion: float = 3,
    module: ShiftModule = "csc",
    order: str = "grouped",
    shift: ShiftKind = "fixed",
    offsets_init: OffsetsInit = "grid",
    implementation: str | None = None,
    **common,
) -> ResNet50:
    """ResNet-50 whose 3×3 convolutions are CSC modules without shortcut (Table 3).

    Parameters and MACs at 224×224 for width 1, √½ and ½: 21,807,272 and 3,819,438,080;
    11,335,202 and 1,924,661,152; 5,985,864 and 984,875,008 (Table 7's ShiftResNet-0.25).

    Args:
      width: as for `resnet50`.
      expansion: E of the CSC modules; 3 in the paper.
      module: "csc" or "sc2" (Figure 3).
      order, implementation: see `shift_jax.layers.CSC`.
      shift, offsets_init: whether and how the shifts are learned, see `shift_jax.layers.CSC`; the
        counts are those of fixed ones.
      **common: as for `resnet50`.
    """
    planes = _planes(width)
    middle_channels(expansion, planes[0])  # Raises here, not when the network is first used.
    middle = shift_module(
        module,
        shift,
        offsets_init,
        expansion=expansion,
        order=order,
        implementation=implementation,
    )
    return ResNet50(planes=planes, middle=middle, **common)


def _torch_layout(arguments: Mapping[str, Any]) -> TorchLayout:
    outside = {"stem/conv": "conv1", "stem/norm": "bn1", "classifier": "fc"}
    inside = {"conv_shortcut": "downsample.0", "norm_shortcut": "downsample.1"}
    return TorchLayout("torchvision", torch_block_names(outside, inside))


def _planes(width: float) -> tuple[int, int, int, int]:
    check_width(width, 64)
    return int(64 * width), int(128 * width), int(256 * width), int(512 * width)


register(
    ModelRecord(
        "resnet50",
        resnet50,
        paper="He et al. 2016, arXiv:1512.03385",
        table="Table 3",
        counts=(
            Count({}, 25557032, 4089184256),
            Count({"width": 0.5**0.5}, 13203719, 2058656356),
            Count({"width": 0.5}, 6917640, 1052311552),
        ),
        torch_layout=_torch_layout,
    )
)
register(
    ModelRecord(
        "shiftresnet50",
        shiftresnet50,
        paper="Wu et al. 2018, arXiv:1711.08141",
        table="Tables 3 and 7",
        counts=(
            Count({}, 21807272, 3819438080),
            Count({"width": 0.5**0.5}, 11335202, 1924661152),
            Count({"width": 0.5}, 5985864, 984875008),
        ),
    )
)
