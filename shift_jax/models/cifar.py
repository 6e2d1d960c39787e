"""The CIFAR networks of Tables 1, 2, 4 and 5: ResNet, its reductions, ShiftResNet, DepthwiseResNet.

All have a 3×3 stem of 16 filters, three groups of n = 3, 9 or 18 blocks (depth 20, 56, 110) with
widths 16, 32 and 64, stride 2 in the first block of groups 2 and 3, global average pooling and one
linear layer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from shift_jax.errors import InputError, did_you_mean
from shift_jax.layers import CSC, SC2, batch_norm, he_init, pytorch_bias_init, pytorch_init
from shift_jax.models.cifar_blocks import BasicBlock, DepthwiseBlock
from shift_jax.models.registry import ModelRecord, register

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

Initialization = Literal["he", "pytorch"]

_BLOCKS_PER_GROUP = {20: 3, 56: 9, 110: 18}
_INITIALIZERS = {"he": he_init, "pytorch": pytorch_init}

# Table 5's reduced ResNets: the factor that gives the size of a ShiftResNet of expansion E.
_MODULE_FACTORS = {
    20: {1: 12.0, 3: 3.3, 6: 1.6, 9: 1.0},
    56: {1: 16.0, 3: 3.3, 6: 1.6, 9: 1.0},
    110: {1: 15.0, 3: 3.3, 6: 1.6, 9: 1.0},
}
# Widths (5, 11, 22), (9, 19, 38), (13, 26, 53) and the full (16, 32, 64).
_NET_FACTORS = {1: 8.2, 3: 2.8, 6: 1.45, 9: 1.0}


class CifarNet(nn.Module):
    """Stem, three groups of blocks, global average pooling and classifier.

    Attributes:
      blocks_per_group: n; the depth is 6n + 2.
      block: makes one block from `features`, `stride`, `dtype`, `param_dtype`, `kernel_init`
        and `name`; called as `block(x, train)`.
      num_classes: width of the classifier.
      widths: channels of the three groups; the stem has the first.
      initialization: "he" (normal, zero biases) or "pytorch" (uniform ±1/√fan_in, biases too).
      dtype, param_dtype: computation and parameter types; the logits are float32.
    """

    blocks_per_group: int
    block: Callable[..., nn.Module]
    num_classes: int = 10
    widths: tuple[int, int, int] = (16, 32, 64)
    initialization: Initialization = "he"
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"]:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        kernel_init = _INITIALIZERS[self.initialization]
        x = nn.Conv(
            self.widths[0], (3, 3), use_bias=False, kernel_init=kernel_init, name="stem", **types
        )(x)
        x = nn.relu(batch_norm(train, name="stem_norm", **types)(x))
        for group, features in enumerate(self.widths, start=1):
            for index in range(1, self.blocks_per_group + 1):
                x = self.block(
                    features=features,
                    stride=2 if group > 1 and index == 1 else 1,
                    kernel_init=kernel_init,
                    name=f"group{group}_block{index}",
                    **types,
                )(x, train)
        x = x.mean(axis=(-3, -2))
        bias_init = nn.initializers.zeros_init()
        if self.initialization == "pytorch":
            bias_init = pytorch_bias_init(fan_in=x.shape[-1])
        logits = nn.Dense(
            self.num_classes,
            kernel_init=kernel_init,
            bias_init=bias_init,
            name="classifier",
            **types,
        )(x)
        return logits.astype(jnp.float32)


def resnet(
    depth: int,
    num_classes: int = 10,
    *,
    reduction: Literal["module", "net"] | None = None,
    expansion: float | None = None,
    factor: float | None = None,
    shortcut: Literal["identity", "projection"] = "identity",
    initialization: Initialization = "he",
    dtype: Any = None,
    param_dtype: Any = jnp.float32,
) -> CifarNet:
    """ResNet of He et al. 2016 for CIFAR, and the reduced ones of Tables 2 and 5.

    Parameters for 10 classes: ResNet20 272,474, ResNet56 855,770, ResNet110 1,730,714; true MACs
    at 32×32: 40,813,184, 125,747,840, 253,149,824.

    Args:
      depth: 20, 56 or 110.
      num_classes: width of the classifier.
      reduction: None, "module" (each block's first convolution has int(c / factor) filters) or
        "net" (all widths are int(c / √factor)).
      expansion: reduce to the size of the ShiftResNet with this expansion: 1, 3, 6 or 9 (not
        reduced). Needs `reduction`; give either this or `factor`.
      factor: the reduction itself, at least 1.
      shortcut: "identity" where the shape does not change. "projection" has a 1×1 convolution
        and BatchNorm in every block, as the authors' first code had by mistake (the likely cause
        of Table 5's ResNet110 module-wise cells of 40 %); registered as `resnet20_projection` …
      initialization: "he" or "pytorch".
      dtype, param_dtype: computation and parameter types.

    Raises:
      InputError: contradicting or unknown arguments, or a reduction that leaves no filter.
    """
    factor = _reduction_factor(depth, reduction, expansion, factor)
    if shortcut not in ("identity", "projection"):
        raise InputError(f"shortcut is {shortcut!r}, expected 'identity' or 'projection'.")
    widths = (16, 32, 64)
    if reduction == "net":
        widths = tuple(int(width / factor**0.5) for width in widths)
    middle_factor = factor if reduction == "module" else 1.0
    if int(widths[0] / middle_factor) < 1:
        largest = 16**2 if reduction == "net" else 16
        raise InputError(f"factor {factor} leaves no filter of 16: use one of at most {largest}.")
    block = partial(
        BasicBlock, middle_factor=middle_factor, always_project=shortcut == "projection"
    )
    return _cifar_net(depth, block, num_classes, initialization, dtype, param_dtype, widths)


def shiftresnet(
    depth: int,
    num_classes: int = 10,
    *,
    expansion: float = 1,
    module: Literal["csc", "sc2"] = "csc",
    kernel_size: int = 3,
    dilation: int = 1,
    order: Literal["grouped", "interleaved"] = "grouped",
    implementation: str | None = None,
    initialization: Initialization = "he",
    dtype: Any = None,
    param_dtype: Any = jnp.float32,
) -> CifarNet:
    """ResNet with every basic module replaced by a CSC module (Table 5).

    Parameters for 10 classes with E = 1, 3, 6, 9: depth 20: 34,906, 95,642, 186,746, 277,850;
    56: 102,106, 294,554, 583,226, 871,898; 110: 202,906, 592,922, 1,177,946, 1,762,970. True MACs
    at 32×32, depth 20: 5,948,032, 16,433,792, 32,162,432, 47,891,072.

    Args:
      depth: 20, 56 or 110.
      num_classes: width of the classifier.
      expansion: E; the middle of each module has int(E · out) channels, fractions allowed.
      module: "csc" (the paper's) or "sc2" (Figure 3, the same parameters and MACs).
      kernel_size, dilation, order, implementation: of the shift, see `shift_jax.layers.CSC`.
      initialization: "he" or "pytorch" (the authors' code).
      dtype, param_dtype: computation and parameter types.
    """
    modules = {"csc": CSC, "sc2": SC2}
    if module not in modules:
        raise InputError(f"module is {module!r}, expected 'csc' or 'sc2'.")
    block = partial(
        modules[module],
        expansion=expansion,
        expansion_reference="out",
        kernel_size=kernel_size,
        dilation=dilation,
        order=order,
        shortcut="identity_or_projection",
        implementation=implementation,
    )
    return _cifar_net(depth, block, num_classes, initialization, dtype, param_dtype)


def depthwiseresnet(
    depth: int,
    num_classes: int = 10,
    *,
    expansion: float = 1,
    initialization: Initialization = "he",
    dtype: Any = None,
    param_dtype: Any = jnp.float32,
) -> CifarNet:
    """ShiftResNet with depthwise 3×3 convolutions instead of shifts, as the authors compared.

    Args: as `shiftresnet`. Parameters for 10 classes with E = 1: depth 20: 38,602.
    """
    block = partial(DepthwiseBlock, expansion=expansion)
    return _cifar_net(depth, block, num_classes, initialization, dtype, param_dtype)


def _cifar_net(depth, block, num_classes, initialization, dtype, param_dtype, widths=(16, 32, 64)):
    if initialization not in _INITIALIZERS:
        raise InputError(
            f"initialization is {initialization!r}, expected 'he' or 'pytorch'."
            f"{did_you_mean(initialization, _INITIALIZERS)}"
        )
    return CifarNet(
        blocks_per_group=_BLOCKS_PER_GROUP[depth],
        block=block,
        num_classes=num_classes,
        widths=widths,
        initialization=initialization,
        dtype=dtype,
        param_dtype=param_dtype,
    )


def _reduction_factor(depth, reduction, expansion, factor) -> float:
    if reduction not in (None, "module", "net"):
        raise InputError(f"reduction is {reduction!r}, expected None, 'module' or 'net'.")
    if reduction is None:
        if expansion is not None or factor is not None:
            raise InputError(
                "expansion and factor say how far to reduce a ResNet: give reduction='module' or "
                "'net' too, or use a shiftresnet."
            )
        return 1.0
    if (expansion is None) == (factor is None):
        raise InputError("A reduced ResNet takes either expansion=1, 3, 6 or 9 or factor=…")
    if factor is None:
        factors = _MODULE_FACTORS[depth] if reduction == "module" else _NET_FACTORS
        if expansion not in factors:
            raise InputError(
                f"The paper has no reduced ResNet for expansion {expansion}, only for "
                f"{', '.join(map(str, factors))}: give the factor instead."
            )
        return factors[expansion]
    if not isinstance(factor, int | float) or factor < 1:
        raise InputError(f"factor is {factor!r}, expected a number of at least 1.")
    return float(factor)


for _depth in _BLOCKS_PER_GROUP:
    for _name, _build in (
        (f"resnet{_depth}", partial(resnet, _depth)),
        (f"resnet{_depth}_projection", partial(resnet, _depth, shortcut="projection")),
        (f"shiftresnet{_depth}", partial(shiftresnet, _depth)),
        (f"depthwiseresnet{_depth}", partial(depthwiseresnet, _depth)),
    ):
        register(ModelRecord(_name, _build, (32, 32, 3)))
