"""The contribution of each shifted channel and direction (Section 4.2, Figure 7)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import numpy as np

from shift_jax import ops
from shift_jax.counting.layer_table import NETWORK
from shift_jax.counting.tracing import abstract_variables
from shift_jax.errors import InputError, did_you_mean
from shift_jax.layers import CSC, ShiftConv

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class ModuleContributions(NamedTuple):
    """The channels of one shifted tensor.

    Attributes:
      module: the path of the CSC or SC² module, such as "group1_block1"; outside of one, the path
        of the layer.
      layer: the path of the `ShiftConv` that shifts the tensor, such as "group1_block1/conv2".
      kernel_size: the side k of the window of directions.
      dilation: the pixels between neighboring directions.
      in_channels, out_channels: the channels of the module.
      offsets: int32 [C, 2], the (dy, dx) in pixels at which each channel is read.
      norms: float64 [C], the contributions ‖P_{m,:}‖₂.
    """

    module: str
    layer: str
    kernel_size: int
    dilation: int
    in_channels: int
    out_channels: int
    offsets: Int[np.ndarray, "c 2"]
    norms: Float[np.ndarray, " c"]

    @property
    def directions(self) -> Int[np.ndarray, " c"]:
        """The direction of each channel, int [C]: 0 .. k² - 1 in row-major order."""
        steps = self.offsets // self.dilation + self.kernel_size // 2
        return steps[:, 0] * self.kernel_size + steps[:, 1]

    @property
    def shift_groups(self) -> list[Int[np.ndarray, " n"]]:
        """The channels of each of the k² directions; the center has those that do not move."""
        directions = self.directions
        return [np.flatnonzero(directions == d) for d in range(self.kernel_size**2)]


def channel_contributions(
    model: nn.Module, variables: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> list[ModuleContributions]:
    """Returns the contributions of all channels that a network's modules shift.

    Channel m contributes ‖P_{m,:}‖₂, the Euclidean norm of its weights in the pointwise convolution
    after the shift. This is the paper's measure, "for an approximation": it ignores the size of the
    channel's activations and BatchNorm. It needs no images.

    Args:
      model: any linen network with `CSC`, `SC2` or `ShiftConv` layers, called as
        `model(images, train=False)`, or `model(images)` if it takes no `train`.
      variables: its variables; those of other layers may be missing.
      image_shape: (height, width, channels) of the network's images.

    Returns:
      The contributions for each `ShiftConv` that moves a channel, in the order of the computation.

    Raises:
      InputError: no layer moves a channel, the variables belong to another network, or a weight is
        not finite.
    """
    modules: dict[str, ModuleContributions] = {}
    around: dict[tuple[str, ...], tuple[int, int]] = {}

    def note(call, args, kwargs, context):
        layer = context.module
        if context.method_name != "__call__" or not isinstance(layer, CSC | ShiftConv):
            return call(*args, **kwargs)
        path, channels = layer.path, (args[0] if args else kwargs["x"]).shape[-1]
        around[path] = (channels, layer.features)
        result = call(*args, **kwargs)
        if isinstance(layer, ShiftConv) and (offsets := layer.channel_offsets(channels)).any():
            owner = path[:-1] if path[:-1] in around else path
            modules[_name(path)] = ModuleContributions(
                _name(owner),
                _name(path),
                *_window(layer, offsets),
                *around[owner],
                offsets,
                _row_norms(variables, path, (channels, layer.features)),
            )
        return result

    # XLA's backend fuses no layers, so that each one is called with the tensor that it shifts.
    with ops.implementation("xla"), nn.intercept_methods(note):
        abstract_variables(model, image_shape)
    if not modules:
        raise InputError(
            f"{type(model).__name__} shifts no channel, expected a network with CSC, SC2 or "
            "ShiftConv layers: name a shift network, such as shiftresnet20."
        )
    return list(modules.values())


def _name(path: tuple[str, ...]) -> str:
    return "/".join(path) or NETWORK


def _row_norms(
    variables: Mapping[str, Any], path: tuple[str, ...], shape: tuple[int, int]
) -> Float[np.ndarray, " c"]:
    leaf: Any = variables.get("params", {})
    for key in (*path, "kernel"):
        leaf = leaf.get(key, {}) if isinstance(leaf, Mapping) else {}
    if np.shape(leaf) != shape:
        raise InputError(
            f"The variables have no kernel of shape {shape} at {_name(path)}: give the variables "
            "of this network."
        )
    norms = np.linalg.norm(np.asarray(leaf, np.float64), axis=1)
    if not np.isfinite(norms).all():
        raise InputError(
            f"The kernel of {_name(path)} has weights that are not finite, so its training has "
            "failed: use an earlier checkpoint, or train it again."
        )
    return norms


def _window(layer: ShiftConv, offsets: Int[np.ndarray, "c 2"]) -> tuple[int, int]:
    """(kernel_size, dilation) of the layer, or of a window that spans offsets outside of it."""
    steps, beside = np.divmod(np.abs(offsets), layer.dilation)
    if not beside.any() and steps.max() <= layer.kernel_size // 2:
        return layer.kernel_size, layer.dilation
    dilation = math.gcd(*offsets.ravel().tolist())
    return 2 * int(np.abs(offsets).max()) // dilation + 1, dilation


def direction_map(contributions: ModuleContributions) -> Float[np.ndarray, "k k"]:
    """Returns the mean contribution of the channels of each direction, NaN for no channel.

    Figure 7 shows their sum. Sum and mean are proportional if all directions have as many channels,
    as in the paper's module. If some have more, such as the center with the channels left over, the
    mean compares the directions.

    Returns:
      float64 [k, k]; [0, 0] is the direction furthest up and left.
    """
    means = [
        contributions.norms[channels].mean() if channels.size else math.nan
        for channels in contributions.shift_groups
    ]
    return np.reshape(means, (contributions.kernel_size,) * 2)


def ranked_groups(contributions: ModuleContributions) -> list[Int[np.ndarray, " n"]]:
    """Returns the channels of each direction, the largest contributions first (Figure 7)."""
    norms = contributions.norms
    return [
        channels[np.argsort(-norms[channels], kind="stable")]
        for channels in contributions.shift_groups
    ]


def direction_names(kernel_size: int) -> list[str]:
    """Returns short names of the k² directions in row-major order.

    Args:
      kernel_size: for 3 the names are letters (T = top, B = bottom, L = left, R = right,
        C = center): "TL" looks up and left, "T" up. For others they are "dy,dx" in steps, such as
        "-2,+1".
    """
    if kernel_size == 3:
        return ["TL", "T", "TR", "L", "C", "R", "BL", "B", "BR"]
    half = kernel_size // 2
    steps = [f"{step:+d}" if step else "0" for step in range(-half, half + 1)]
    return [f"{dy},{dx}" for dy in steps for dx in steps]


def find_module(modules: Sequence[ModuleContributions], name: str | None) -> ModuleContributions:
    """Returns the last shift of a CSC or SC² module, or one `ShiftConv`.

    Args:
      modules: the result of `channel_contributions`.
      name: the path of either. None takes the first module with as many output as input channels,
        like the paper's, or the first module if there is none.

    Raises:
      InputError: there is no such module.
    """
    if name is None:
        name = next((m.module for m in modules if m.in_channels == m.out_channels), None)
        name = name or modules[0].module
    chosen = [each for each in modules if name in (each.module, each.layer)]
    if not chosen:
        names = list(dict.fromkeys(each.module for each in modules))
        raise InputError(
            f"The network shifts nothing in a module {name!r}, only in {', '.join(names)}."
            f"{did_you_mean(name, names)}"
        )
    return chosen[-1]
