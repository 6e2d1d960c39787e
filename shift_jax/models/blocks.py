"""Convolution blocks and pooling that several families share."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from shift_jax.errors import check_choice
from shift_jax.layers import (
    CSC,
    SC2,
    Initializer,
    NormFactory,
    OffsetsInit,
    ShiftKind,
    batch_norm,
    bias_init_for,
    check_offsets_init,
    check_shift,
    he_init,
)

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

Size = int | tuple[int, int]
ShiftModule = Literal["csc", "sc2"]

_SHIFT_MODULES = {"csc": CSC, "sc2": SC2}


@dataclass(frozen=True)
class BlockFactory:
    """Makes blocks of one class with some of their arguments bound.

    Factories with equal classes and arguments are equal, even after copying or pickling, and so are
    networks whose attributes they are. A `functools.partial` equals only itself, so `jax.jit` would
    trace every new network again.

    Attributes:
      block: the class.
      arguments: sorted pairs of names and hashable values.
    """

    block: type[nn.Module]
    arguments: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, block: type[nn.Module], **arguments) -> BlockFactory:
        """Returns the factory that binds `arguments`."""
        return cls(block, tuple(sorted(arguments.items())))

    def __call__(self, *args, **kwargs) -> Any:
        return self.block(*args, **(dict(self.arguments) | kwargs))


def shift_module(
    module: ShiftModule,
    shift: ShiftKind = "fixed",
    offsets_init: OffsetsInit = "grid",
    **arguments,
) -> BlockFactory:
    """Returns the factory of the paper's CSC or SC² modules (Figure 3), arguments bound."""
    check_choice("module", module, _SHIFT_MODULES)
    arguments["shift"] = check_shift(shift)
    arguments["offsets_init"] = check_offsets_init(offsets_init)
    return BlockFactory.of(_SHIFT_MODULES[module], **arguments)


class ConvNorm(nn.Module):
    """Convolution, normalization and activation.

    Attributes:
      features: number of output channels.
      kernel_size: of rows and columns, or one size for both.
      stride: of rows and columns alike.
      padding: zeros on each side; None is half of the kernel, which keeps the size at stride 1.
      groups: number of groups of channels that are convolved separately.
      norm: makes the normalization; None leaves it out and gives the convolution a bias.
      activation: applied last; None leaves it out.
      kernel_init, dtype, param_dtype: as in `shift_jax.layers.ShiftConv`.
    """

    features: int
    kernel_size: Size = 1
    stride: int = 1
    padding: Size | None = None
    groups: int = 1
    norm: NormFactory | None = batch_norm
    activation: Callable[[Array], Array] | None = nn.relu
    kernel_init: Initializer = he_init
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False):
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        kernel = _pair(self.kernel_size)
        padding = tuple(k // 2 for k in kernel) if self.padding is None else _pair(self.padding)
        fan_in = math.prod(kernel) * x.shape[-1] // self.groups
        x = nn.Conv(
            self.features,
            kernel,
            (self.stride, self.stride),
            padding=[(p, p) for p in padding],
            feature_group_count=self.groups,
            use_bias=self.norm is None,
            kernel_init=self.kernel_init,
            bias_init=bias_init_for(self.kernel_init, fan_in),
            name="conv",
            **types,
        )(x)
        if self.norm is not None:
            x = self.norm(train, name="norm", **types)(x)
        return x if self.activation is None else self.activation(x)


def max_pool(x: Float[Array, "b h w c"], size: int, stride: int, padding: int = 0, *, ceil=False):
    """Applies max pooling; `ceil` keeps the last, partial window, as Caffe does."""

    def pads(length: int) -> tuple[int, int]:
        missing = (size - length - 2 * padding) % stride if ceil else 0
        return (padding, padding + missing)

    window, strides, sides = (size, size), (stride, stride), [pads(n) for n in x.shape[1:3]]
    # Flax takes pairs, too, which its annotation forgets.
    return nn.max_pool(x, window, strides, sides)  # pyright: ignore[reportArgumentType]


def adaptive_avg_pool(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b size size c"]:
    """Applies average pooling to `size` × `size`, with windows that overlap if need be.

    As in PyTorch, window i covers rows ⌊i·H/size⌋ to ⌈(i+1)·H/size⌉; an input of `size` × `size` is
    returned as it is.
    """
    for axis in (1, 2):
        length = x.shape[axis]
        if length == size:
            continue
        # Masks, not slices, which would be slow to trace where the length is symbolic.
        window, place = jnp.arange(size)[:, None], jnp.arange(length)[None]
        start, stop = window * length // size, -(-(window + 1) * length // size)
        inside = (start <= place) & (place < stop)
        others = [each for each in range(5) if each not in (axis, axis + 1)]
        pixels = jnp.where(jax.lax.expand_dims(inside, others), jnp.expand_dims(x, axis), 0)
        sums = pixels.sum(axis + 1, dtype=jnp.promote_types(x.dtype, jnp.float32))
        counts = jax.lax.expand_dims(
            (stop - start)[:, 0], [each for each in range(4) if each != axis]
        )
        x = (sums / counts).astype(x.dtype)
    return x


def local_response_norm(
    x: Float[Array, "b h w c"], size: int = 5, alpha: float = 1e-4, beta: float = 0.75
) -> Float[Array, "b h w c"]:
    """Returns x / (1 + alpha · mean of x² over `size` neighboring channels)^beta, as in Caffe.

    Krizhevsky et al. 2012, Section 3.3, with Caffe's division of alpha by the size.
    """
    window, half = (1, 1, 1, size), size // 2
    squares = jnp.square(x.astype(jnp.float32))
    sums = jax.lax.reduce_window(
        squares, 0.0, jax.lax.add, window, (1,) * 4, [(0, 0)] * 3 + [(half, size - 1 - half)]
    )
    return (x * (1 + alpha / size * sums) ** -beta).astype(x.dtype)


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size
