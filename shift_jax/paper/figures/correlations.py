"""The redundancy of the channels in each shift group (Section 4.1, Figure 8)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from shift_jax import ops
from shift_jax.counting.layer_table import NETWORK
from shift_jax.errors import InputError
from shift_jax.layers import ShiftConv

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, Int

# A standard deviation below this fraction of the mean is the rounding error of a constant.
_CONSTANT = 1e-12


class RedundantPair(NamedTuple):
    """Two channels of one shift group, of which one could be removed.

    Attributes:
      direction: the group's direction, 0 .. k² - 1 in row-major order.
      first, second: the channels in the shifted tensor; first < second.
      correlation: Pearson's correlation of their activations.
    """

    direction: int
    first: int
    second: int
    correlation: float


def shifted_activations(
    model: nn.Module, layer: str
) -> Callable[[Mapping[str, Any], Float[np.ndarray, "b h w c"]], Float[Array, "n h w m"]]:
    """Returns a compiled function for the activations that one layer shifts, before the shift.

    In a CSC module they are the intermediate activations, after BatchNorm and ReLU. All channels of
    a shift group move alike, so the shift would change their correlations only by the zeros at the
    border, which are no activations of the network.

    Args:
      model: any linen network, called as `model(images)`.
      layer: the path of a `ShiftConv`, such as "group1_block1/conv2".

    Returns:
      (variables, images [B, H, W, C]) → [N, h, w, M]; N is B, or a multiple if the network calls
      the layer several times.
    """

    def activations(variables, images):
        found = []

        def note(call, args, kwargs, context):
            path = "/".join(context.module.path) or NETWORK
            is_call = context.method_name == "__call__" and isinstance(context.module, ShiftConv)
            if is_call and path == layer:
                found.append(args[0] if args else kwargs["x"])
            return call(*args, **kwargs)

        # XLA's backend fuses no layers, so that each one is called with the tensor it shifts.
        with ops.implementation("xla"), nn.intercept_methods(note):
            model.apply(variables, images)
        return jnp.concatenate([x.reshape(-1, *x.shape[-3:]) for x in found])

    return jax.jit(activations)


class GroupCorrelations:
    """Correlation matrices of groups of channels over all added pixels.

    Means and co-moments are updated batch by batch in float64 (Chan et al. 1983), which stays exact
    for large means.

    Args:
      groups: the channels of each group, such as `ModuleContributions.shift_groups`.
    """

    def __init__(self, groups: Iterable[Int[np.ndarray, " n"]]):
        self._groups = [np.asarray(channels) for channels in groups]
        self._means = [np.zeros(len(channels)) for channels in self._groups]
        self._moments = [np.zeros((len(channels),) * 2) for channels in self._groups]
        self.count = 0

    def add(self, activations: Float[np.ndarray, "*n c"]) -> None:
        """Adds pixels [..., C].

        Raises:
          InputError: activations that are not finite.
        """
        pixels = np.asarray(activations).reshape(-1, np.shape(activations)[-1])
        if not len(pixels):
            return
        total = self.count + len(pixels)
        for index, channels in enumerate(self._groups):
            values = pixels[:, channels].astype(np.float64)
            if not np.isfinite(values).all():
                raise InputError(
                    "The network's activations are not finite, so its training has failed: use "
                    "an earlier checkpoint, or train it again."
                )
            mean = values.mean(axis=0)
            values -= mean
            step = mean - self._means[index]
            share = self.count * len(pixels) / total
            self._moments[index] += values.T @ values + share * np.outer(step, step)
            self._means[index] += step * len(pixels) / total
        self.count = total

    def matrices(self) -> list[Float[np.ndarray, "n n"]]:
        """Returns each group's float64 matrix of Pearson correlations, -1 .. 1.

        The row and column of a channel with constant activations are NaN.

        Raises:
          InputError: fewer than two pixels were added.
        """
        if self.count < 2:
            raise InputError(
                f"Correlations need two pixels or more, but got {self.count}: give more images."
            )
        return [self._matrix(*group) for group in zip(self._means, self._moments, strict=True)]

    def _matrix(self, mean, moments) -> Float[np.ndarray, "n n"]:
        deviation = np.sqrt(moments.diagonal() / self.count)
        deviation[deviation <= _CONSTANT * np.abs(mean)] = np.nan
        return np.clip(moments / self.count / np.outer(deviation, deviation), -1, 1)


def redundant_pairs(
    groups: Iterable[Int[np.ndarray, " n"]],
    matrices: Iterable[Float[np.ndarray, "n n"]],
    threshold: float,
) -> list[RedundantPair]:
    """Returns the pairs of channels within each group whose |correlation| exceeds a threshold.

    "If the correlation between two channels is above a threshold, we can remove one channel"
    (Section 4.1). Opposite channels are pairs too: the pointwise convolution can negate.

    Args:
      groups: the channels of each direction.
      matrices: their correlations, from `GroupCorrelations.matrices`.
      threshold: 0 or more and below 1.

    Returns:
      The pairs, most correlated first, without channels of constant activations.

    Raises:
      InputError: a threshold out of range.
    """
    if not 0 <= threshold < 1:
        raise InputError(
            f"threshold is {threshold}, expected a correlation of 0 or more and below 1, such as "
            "0.9."
        )
    pairs = []
    for direction, (channels, matrix) in enumerate(zip(groups, matrices, strict=True)):
        upper = np.triu(np.nan_to_num(matrix), 1)
        for row, column in np.argwhere(np.abs(upper) > threshold):
            first, second = int(channels[row]), int(channels[column])
            pairs.append(RedundantPair(direction, first, second, float(matrix[row, column])))
    return sorted(pairs, key=lambda pair: -abs(pair.correlation))
