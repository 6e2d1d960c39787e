"""CIFAR networks of Tables 1, 2, 4 and 5: ResNet, its reductions, ShiftResNet, DepthwiseResNet.

All have a 3×3 stem of 16 filters; three groups of n = 3, 9 or 18 blocks (depth 20, 56 or 110) with
widths 16, 32 and 64, where the first block of groups 2 and 3 has stride 2; global average pooling;
and one linear layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal

import flax.linen as nn

from shift_jax.errors import InputError, check_choice
from shift_jax.layers import OffsetsInit, ShiftConv, ShiftKind, batch_norm, middle_channels
from shift_jax.models import cifar_torch
from shift_jax.models.blocks import BlockFactory, ShiftModule, shift_module
from shift_jax.models.network import FeatureMap, Network, check_images
from shift_jax.models.registry import Count, ModelRecord, register
from shift_jax.models.residual_blocks import BasicBlock, DepthwiseBlock

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

_BLOCKS_PER_GROUP = {20: 3, 56: 9, 110: 18}

# Table 5's reduced ResNets: the factor that gives them the size of a ShiftResNet of expansion E.
_MODULE_FACTORS = {
    20: {1: 12.0, 3: 3.3, 6: 1.6, 9: 1.0},
    56: {1: 16.0, 3: 3.3, 6: 1.6, 9: 1.0},
    110: {1: 15.0, 3: 3.3, 6: 1.6, 9: 1.0},
}
# Widths (5, 11, 22), (9, 19, 38), (13, 26, 53) and the full (16, 32, 64).
_NET_FACTORS = {1: 8.2, 3: 2.8, 6: 1.45, 9: 1.0}


class CifarNet(Network, kw_only=True):
    """Stem, three groups of blocks, global average pooling and classifier.

    Attributes:
      blocks_per_group: n; the depth is 6n + 2.
      block: makes one block from `features`, `stride`, `dtype`, `param_dtype`, `kernel_init`
        and `name`; the block is called with `(x, train)`.
      widths: channels of the three groups; the stem has as many as the first.
    """

    blocks_per_group: int
    block: Callable[..., nn.Module]
    widths: tuple[int, int, int] = (16, 32, 64)

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"] | tuple[FeatureMap, ...]:
        check_images(x)
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = nn.Conv(self.widths[0], (3, 3), use_bias=False, name="stem", **self.common)(x)
        x = nn.relu(batch_norm(train, name="stem_norm", **types)(x))
        maps = [FeatureMap("stem", 1, x)]
        for group, features in enumerate(self.widths, start=1):
            for index in range(1, self.blocks_per_group + 1):
                x = self.block(
                    features=features,
                    stride=2 if group > 1 and index == 1 else 1,
                    name=f"group{group}_block{index}",
                    **self.common,
                )(x, train)
            maps.append(FeatureMap(f"group{group}", 2 ** (group - 1), x))
        if self.features_only:
            return tuple(maps)
        return self.classify(x.mean(axis=(-3, -2)))


def resnet(
    depth: int,
    shortcut: Literal["identity", "projection"] = "identity",
    *,
    reduction: Literal["module", "net"] | None = None,
    expansion: float | None = None,
    factor: float | None = None,
    **common,
) -> CifarNet:
    """ResNet of He et al. 2016 for CIFAR, and the reduced ones of Tables 2 and 5.

    Parameters for 10 classes: ResNet20 272,474, ResNet56 855,770, ResNet110 1,730,714; true MACs
    at 32×32: 40,813,184, 125,747,840, 253,149,824. With a projection in every block: 283,962,
    900,858, 1,826,202 and 42,648,192, 132,301,440, 266,781,312.

    Args:
      depth: 20, 56 or 110.
      shortcut: "identity" where the shape does not change. "projection" has a 1×1 convolution
        and BatchNorm in every block, as the authors' first code did by mistake (the likely cause
        of Table 5's 40 % for module-wise ResNet110); registered as `resnet20_projection` and so on.
      reduction: None, "module" (the first convolution of each block has int(c / factor) filters)
        or "net" (all widths are int(c / √factor)).
      expansion: reduces the network to the size of the ShiftResNet with this expansion: 1, 3, 6 or
        9 (not reduced). Needs `reduction` and excludes `factor`.
      factor: of the reduction, at least 1. Needs `reduction` and excludes `expansion`.
      **common: `num_classes` and the other attributes of `shift_jax.models.network.Network`.

    Raises:
      InputError: contradictory or unknown arguments, or a reduction that leaves no filter.
    """
    factor = _reduction_factor(depth, reduction, expansion, factor)
    check_choice("shortcut", shortcut, ("identity", "projection"))
    widths = (16, 32, 64)
    if reduction == "net":
        widths = tuple(int(width / factor**0.5) for width in widths)
    middle_factor = factor if reduction == "module" else 1.0
    if int(widths[0] / middle_factor) < 1:
        largest = 16**2 if reduction == "net" else 16
        raise InputError(
            f"factor {factor} leaves none of 16 filters: use a factor of at most {largest}."
        )
    block = BlockFactory.of(
        BasicBlock, middle_factor=middle_factor, always_project=shortcut == "projection"
    )
    return _cifar_net(depth, block, widths=widths, **common)


def shiftresnet(
    depth: int,
    *,
    expansion: float = 1,
    module: ShiftModule = "csc",
    kernel_size: int = 3,
    dilation: int = 1,
    order: Literal["grouped", "interleaved"] = "grouped",
    direction_weights: Sequence[float] | None = None,
    shift: ShiftKind = "fixed",
    offsets_init: OffsetsInit = "grid",
    implementation: str | None = None,
    **common,
) -> CifarNet:
    """ResNet with every basic module replaced by a CSC module (Table 5).

    Parameters for 10 classes with E = 1, 3, 6, 9: depth 20: 34,906, 95,642, 186,746, 277,850;
    56: 102,106, 294,554, 583,226, 871,898; 110: 202,906, 592,922, 1,177,946, 1,762,970. True MACs
    at 32×32: 20: 5,948,032, 16,433,792, 32,162,432, 47,891,072; 56: 15,385,216, 44,745,344,
    88,785,536, 132,825,728; 110: 29,540,992, 87,212,672, 173,720,192, 260,227,712.

    Args:
      depth: 20, 56 or 110.
      expansion: E, fractions allowed; the middle of each module has int(E · out) channels.
      module: "csc" (the paper's) or "sc2" (Figure 3, the same parameters and MACs).
      kernel_size, dilation, order, implementation: of the shift, see `shift_jax.layers.CSC`.
      direction_weights: k² numbers; each direction gets channels in proportion to its number
        (Section 4; see `shift_jax.ops.allocate_offsets`). Parameters and MACs stay the same. None
        is the paper's uniform allocation.
      shift, offsets_init: whether and how the shifts are learned, see `shift_jax.layers.CSC`; the
        counts are those of fixed ones.
      **common: as for `resnet`.
    """
    middle_channels(expansion, 16)  # Raises here, not when the network is first used.
    if direction_weights is not None:
        layer = ShiftConv(1, kernel_size, order=order, direction_weights=direction_weights)
        layer.channel_offsets(1)  # Likewise.
        direction_weights = layer.direction_weights  # Hashable, even if a list was given.
    if direction_weights is not None and shift != "fixed":
        raise InputError("direction_weights are of fixed shifts: leave shift or them out.")
    block = shift_module(
        module,
        shift,
        offsets_init,
        expansion=expansion,
        expansion_reference="out",
        kernel_size=kernel_size,
        dilation=dilation,
        order=order,
        direction_weights=direction_weights,
        shortcut="identity_or_projection",
        implementation=implementation,
    )
    return _cifar_net(depth, block, **common)


def depthwiseresnet(
    depth: int,
    *,
    expansion: float = 1,
    **common,
) -> CifarNet:
    """ShiftResNet with depthwise 3×3 convolutions instead of shifts, from the authors' code.

    Parameters for 10 classes and true MACs at 32×32 with E = 1: depth 20: 38,602 and 7,053,952; 56:
    113,194 and 18,039,424; 110: 225,082 and 34,517,632.

    Args:
      depth: 20, 56 or 110.
      expansion: as for `shiftresnet`.
      **common: as for `resnet`.
    """
    middle_channels(expansion, 16)
    block = BlockFactory.of(DepthwiseBlock, expansion=expansion)
    return _cifar_net(depth, block, **common)


def _cifar_net(depth: int, block: Callable[..., nn.Module], **arguments) -> CifarNet:
    return CifarNet(blocks_per_group=_BLOCKS_PER_GROUP[depth], block=block, **arguments)


def _reduction_factor(depth, reduction, expansion, factor) -> float:
    check_choice("reduction", reduction, (None, "module", "net"))
    if reduction is None:
        if expansion is not None or factor is not None:
            raise InputError(
                "expansion and factor set the size of a reduced ResNet: give reduction='module' or "
                "'net' too, or use a shiftresnet."
            )
        return 1.0
    if (expansion is None) == (factor is None):
        raise InputError(
            "A reduced ResNet takes either expansion=1, 3, 6 or 9 or factor=…: give one of them."
        )
    if factor is None:
        factors = _MODULE_FACTORS[depth] if reduction == "module" else _NET_FACTORS
        if expansion not in tuple(factors):
            raise InputError(
                f"The paper has no reduced ResNet for expansion {expansion!r}, only for "
                f"{', '.join(map(str, factors))}: give a factor instead."
            )
        return factors[expansion]
    if not isinstance(factor, int | float) or not factor >= 1:
        raise InputError(f"factor is {factor!r}, expected a number of at least 1.")
    return float(factor)


_HE = "He et al. 2016, arXiv:1512.03385, Section 4.2"
_SHIFT = "Wu et al. 2018, arXiv:1711.08141, Section 3.1"

# Parameters for 10 classes and true MACs.
_RESNETS = {20: (272474, 40813184), 56: (855770, 125747840), 110: (1730714, 253149824)}
_PROJECTIONS = {20: (283962, 42648192), 56: (900858, 132301440), 110: (1826202, 266781312)}
_SHIFTRESNETS = {
    20: {1: (34906, 5948032), 3: (95642, 16433792), 6: (186746, 32162432), 9: (277850, 47891072)},
    56: {
        1: (102106, 15385216),
        3: (294554, 44745344),
        6: (583226, 88785536),
        9: (871898, 132825728),
    },
    110: {
        1: (202906, 29540992),
        3: (592922, 87212672),
        6: (1177946, 173720192),
        9: (1762970, 260227712),
    },
}
_DEPTHWISE = {20: (38602, 7053952), 56: (113194, 18039424), 110: (225082, 34517632)}

for _depth in _BLOCKS_PER_GROUP:
    _shift_counts = _SHIFTRESNETS[_depth].items()
    for _name, _build, _layout, _paper, _counts in (
        (
            f"resnet{_depth}",
            partial(resnet, _depth),
            cifar_torch.resnet_layout,
            _HE,
            [Count({}, *_RESNETS[_depth])],
        ),
        (
            f"resnet{_depth}_projection",
            partial(resnet, _depth, "projection"),
            cifar_torch.resnet_layout,
            _HE,
            [Count({}, *_PROJECTIONS[_depth])],
        ),
        (
            f"shiftresnet{_depth}",
            partial(shiftresnet, _depth),
            cifar_torch.shift_layout,
            _SHIFT,
            [Count({"expansion": expansion}, *count) for expansion, count in _shift_counts],
        ),
        (
            f"depthwiseresnet{_depth}",
            partial(depthwiseresnet, _depth),
            cifar_torch.depthwise_layout,
            _SHIFT,
            [Count({}, *_DEPTHWISE[_depth])],
        ),
    ):
        register(
            ModelRecord(
                _name,
                _build,
                paper=_paper,
                table="" if _name.startswith("depthwise") else "Tables 1, 2, 4 and 5",
                counts=tuple(_counts),
                image_shape=(32, 32, 3),
                num_classes=10,
                mean=(0.4914, 0.4822, 0.4465),
                std=(0.2023, 0.1994, 0.2010),
                crop=1.0,
                torch_layout=_layout,
            )
        )
