"""The trunk of Inception-ResNet-v1, which FaceNet uses (Tables 8 and 9)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp

from shift_jax.layers import Initializer, batch_norm, bias_init_for, he_init
from shift_jax.models.blocks import ConvNorm, Size, max_pool
from shift_jax.models.network import FeatureMap, Network, check_images

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

# A convolution of a branch: features, kernel size, stride. Strided ones have no padding.
Convolution = tuple[int, Size, int]

_BLOCK_35 = (((32, 1, 1),), ((32, 1, 1), (32, 3, 1)), ((32, 1, 1), (32, 3, 1), (32, 3, 1)))
_BLOCK_17 = (((128, 1, 1),), ((128, 1, 1), (128, (1, 7), 1), (128, (7, 1), 1)))
_BLOCK_8 = (((192, 1, 1),), ((192, 1, 1), (192, (1, 3), 1), (192, (3, 1), 1)))
_REDUCTION_A = (((384, 3, 2),), ((192, 1, 1), (192, 3, 1), (256, 3, 2)))
_REDUCTION_B = (
    ((256, 1, 1), (384, 3, 2)),
    ((256, 1, 1), (256, 3, 2)),
    ((256, 1, 1), (256, 3, 1), (256, 3, 2)),
)


class Branches(nn.Module):
    """Parallel chains of ConvNorm, concatenated; `pool` adds 3×3 max pooling of stride 2."""

    branches: tuple[tuple[Convolution, ...], ...]
    pool: bool = False
    kernel_init: Initializer = he_init
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False):
        outputs = []
        for b, branch in enumerate(self.branches):
            y = x
            for c, (features, kernel_size, stride) in enumerate(branch):
                y = ConvNorm(
                    features,
                    kernel_size,
                    stride,
                    padding=None if stride == 1 else 0,
                    norm=_NORM,
                    kernel_init=self.kernel_init,
                    dtype=self.dtype,
                    param_dtype=self.param_dtype,
                    name=f"branch{b}_conv{c}",
                )(y, train)
            outputs.append(y)
        if self.pool:
            outputs.append(max_pool(x, 3, 2))
        return jnp.concatenate(outputs, axis=-1)


class ResidualBranches(nn.Module):
    """Computes activation(x + scale · 1×1(branches of x)).

    Attributes:
      branches: see `Branches`.
      scale: factor of the residual.
      activation: applied to the sum; None leaves it out.
    """

    branches: tuple[tuple[Convolution, ...], ...]
    scale: float
    activation: Callable[[Array], Array] | None = nn.relu
    kernel_init: Initializer = he_init
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False):
        common = {
            "kernel_init": self.kernel_init,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }
        y = Branches(self.branches, name="branches", **common)(x, train)
        y = nn.Conv(
            x.shape[-1],
            (1, 1),
            bias_init=bias_init_for(self.kernel_init, y.shape[-1]),
            name="up",
            **common,
        )(y)
        x = x.astype(y.dtype) + self.scale * y
        return x if self.activation is None else self.activation(x)


class InceptionResNetV1(Network, kw_only=True):
    """Inception-ResNet-v1 (Szegedy et al. 2016, arXiv:1602.07261) up to its 1,792 features.

    22,564,096 parameters; BatchNorm with scale and ε = 0.001; images of at least 75×75.

    Attributes:
      repeats: number of residual blocks at strides 8, 16 and 32; one more without activation
        follows the last.
    """

    num_classes: int = 0
    repeats: tuple[int, int, int] = (5, 10, 5)

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b features"] | tuple[FeatureMap, ...]:
        check_images(x, smallest=75)

        def conv(x, name, features, kernel_size, stride=1, padding=0):
            return ConvNorm(
                features, kernel_size, stride, padding, norm=_NORM, name=name, **self.common
            )(x, train)

        def repeat(x, stage, branches, scale):
            for index in range(1, self.repeats[stage] + 1):
                name = f"stage{stage + 1}_block{index}"
                x = ResidualBranches(branches, scale, name=name, **self.common)(x, train)
            return x

        x = conv(x, "conv1", 32, 3, stride=2)
        x = conv(x, "conv2", 32, 3)
        x = conv(x, "conv3", 64, 3, padding=1)
        maps = [FeatureMap("stem", 2, x)]
        x = max_pool(x, 3, 2)
        x = conv(x, "conv4", 80, 1)
        x = conv(x, "conv5", 192, 3)
        x = conv(x, "conv6", 256, 3, stride=2)
        x = repeat(x, 0, _BLOCK_35, 0.17)
        maps.append(FeatureMap("stage1", 8, x))
        x = Branches(_REDUCTION_A, pool=True, name="reduction_a", **self.common)(x, train)
        x = repeat(x, 1, _BLOCK_17, 0.10)
        maps.append(FeatureMap("stage2", 16, x))
        x = Branches(_REDUCTION_B, pool=True, name="reduction_b", **self.common)(x, train)
        x = repeat(x, 2, _BLOCK_8, 0.20)
        x = ResidualBranches(_BLOCK_8, 1.0, activation=None, name="stage3_last", **self.common)(
            x, train
        )
        maps.append(FeatureMap("stage3", 32, x))
        if self.features_only:
            return tuple(maps)
        return self.classify(x.mean(axis=(1, 2)))


_NORM = partial(batch_norm, epsilon=1e-3)
