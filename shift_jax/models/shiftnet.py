"""ShiftNet-A, B and C for ImageNet (Tables 6 and 7)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple

import flax.linen as nn

from shift_jax.layers import OffsetsInit, ShiftKind, Shortcut
from shift_jax.models.blocks import ConvNorm, ShiftModule, shift_module
from shift_jax.models.network import FeatureMap, Network, check_images
from shift_jax.models.registry import Count, ModelRecord, register

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


class Group(NamedTuple):
    """A strided module that changes the number of channels, and modules that keep it.

    Attributes:
      features: number of output channels.
      kernel_size: of the shifts.
      first_expansion: of the strided module.
      expansion: of the other modules.
      repeats: number of the other modules.
    """

    features: int
    kernel_size: int
    first_expansion: float
    expansion: float
    repeats: int


_TABLE_6 = (
    Group(64, 5, 4, 4, 4),
    Group(128, 5, 4, 3, 5),
    Group(256, 3, 3, 2, 6),
    Group(512, 3, 2, 1, 2),
)


class ShiftNet(Network, kw_only=True):
    """7×7 stem of stride 2 without max pooling, four groups of modules, average pooling.

    Attributes:
      stem: number of channels of the stem.
      groups: see `Group`.
      shortcut: of the strided modules, see `shift_jax.layers.CSC`.
      expansion_reference: channels that expansions multiply, see `shift_jax.layers.CSC`.
      module: "csc" or "sc2" (Figure 3).
      order, implementation, shift, offsets_init: see `shift_jax.layers.CSC`.
    """

    stem: int = 32
    groups: tuple[Group, ...] = _TABLE_6
    shortcut: Shortcut = "pool_concat"
    expansion_reference: Literal["in", "out"] = "in"
    module: ShiftModule = "csc"
    order: str = "grouped"
    implementation: str | None = None
    shift: ShiftKind = "fixed"
    offsets_init: OffsetsInit = "grid"

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"] | tuple[FeatureMap, ...]:
        check_images(x)
        module = shift_module(
            self.module,
            self.shift,
            self.offsets_init,
            shortcut=self.shortcut,
            expansion_reference=self.expansion_reference,
            order=self.order,
            implementation=self.implementation,
            **self.common,
        )
        x = ConvNorm(self.stem, 7, 2, name="stem", **self.common)(x, train)
        maps = [FeatureMap("stem", 2, x)]
        for number, group in enumerate(self.groups, start=1):
            for index in range(1 + group.repeats):
                x = module(
                    group.features,
                    kernel_size=group.kernel_size,
                    expansion=group.expansion if index else group.first_expansion,
                    stride=1 if index else 2,
                    name=f"group{number}_block{index + 1}",
                )(x, train)
            maps.append(FeatureMap(f"group{number}", 2 ** (number + 1), x))
        if self.features_only:
            return tuple(maps)
        return self.classify(x.mean(axis=(1, 2)))


_HALVED = tuple(group._replace(features=group.features // 2) for group in _TABLE_6)
_SMALL = tuple(Group(width, 3, 1, 1, n - 1) for width, n in ((32, 1), (64, 4), (128, 4), (256, 3)))

_VARIANTS = {
    "a": {},
    "b": {"stem": 16, "groups": _HALVED},
    "c": {"groups": _SMALL, "shortcut": "pool_pad", "expansion_reference": "out"},
}


def shiftnet(
    variant: Literal["a", "b", "c"],
    *,
    module: ShiftModule = "csc",
    order: str = "grouped",
    shift: ShiftKind = "fixed",
    offsets_init: OffsetsInit = "grid",
    implementation: str | None = None,
    **common,
) -> ShiftNet:
    """ShiftNet-A, B or C of Table 7.

    - A is Table 6: 4,187,720 parameters, 4,163,144 of them not BatchNorm's; 1,424,306,176 MACs at
      224×224. Strided modules concatenate the average-pooled input.
    - B halves all widths, the stem's included: 1,183,000 parameters (1,170,712) and 370,956,288
      MACs.
    - C has 1, 4, 4 and 3 modules of 32, 64, 128 and 256 channels, E = 1, k = 3: 784,136 parameters
      (777,800) and 155,600,896 MACs. The published 0.78 M allow only one reading: the path of a
      strided module has the full width (in → out → out), and its shortcut has no parameters. The
      counts do not determine the shortcut; here it adds the average-pooled input, zero-padded in
      channels.

    Args:
      variant: "a", "b" or "c"; registered as `shiftnet_a` and so on.
      module: "csc" or "sc2" (Figure 3).
      order, implementation: see `shift_jax.layers.CSC`.
      shift, offsets_init: whether and how the shifts are learned, see `shift_jax.layers.CSC`; the
        counts are those of fixed ones.
      **common: `num_classes` and the other attributes of `shift_jax.models.network.Network`.
    """
    shift_module(module, shift, offsets_init)  # Raises here, not when the network is first used.
    return ShiftNet(
        module=module,
        order=order,
        implementation=implementation,
        shift=shift,
        offsets_init=offsets_init,
        **_VARIANTS[variant],
        **common,
    )


_PUBLISHED: tuple[tuple[Literal["a", "b", "c"], str, int, int], ...] = (
    ("a", "Tables 6 and 7", 4187720, 1424306176),
    ("b", "Table 7", 1183000, 370956288),
    ("c", "Table 7", 784136, 155600896),
)
for _variant, _table, _parameters, _macs in _PUBLISHED:
    register(
        ModelRecord(
            f"shiftnet_{_variant}",
            partial(shiftnet, _variant),
            paper="Wu et al. 2018, arXiv:1711.08141",
            table=_table,
            counts=(Count({}, _parameters, _macs),),
        )
    )
