"""Residual blocks of the CIFAR and ImageNet ResNets, and their depthwise and shift versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp

from shift_jax.layers import CSC, Initializer, batch_norm, he_init, middle_channels
from shift_jax.weights.torch.layout import path_parts

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


class BasicBlock(nn.Module):
    """ResNet's basic module: 3×3(stride)-BN-ReLU-3×3-BN, shortcut, ReLU after the sum.

    Attributes:
      features: output channels.
      middle_factor: the first convolution has int(features / middle_factor) filters.
      always_project: whether the shortcut is a projection even if the shape does not change.
    """

    features: int
    stride: int = 1
    middle_factor: float = 1.0
    always_project: bool = False
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = he_init

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False):
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(_conv, padding=1, kernel_init=self.kernel_init, **types)
        y = conv(int(self.features / self.middle_factor), 3, self.stride, name="conv1")(x)
        y = nn.relu(batch_norm(train, name="norm1", **types)(y))
        y = conv(self.features, 3, name="conv2")(y)
        y = batch_norm(train, name="norm2", **types)(y)
        shortcut = _shortcut(self, x, train, self.always_project)
        return nn.relu(shortcut + y)


class DepthwiseBlock(nn.Module):
    """The authors' depthwise baseline of the CSC module.

    1×1-BN-ReLU, depthwise 3×3-BN, 1×1(stride)-BN, shortcut, ReLU after the sum.

    Attributes:
      features: output channels.
      expansion: E; the middle has int(E · features) channels.
    """

    features: int
    stride: int = 1
    expansion: float = 1
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = he_init

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False):
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(_conv, kernel_init=self.kernel_init, **types)
        middle = middle_channels(self.expansion, self.features)
        y = conv(middle, 1, name="conv1")(x)
        y = nn.relu(batch_norm(train, name="norm1", **types)(y))
        y = conv(middle, 3, padding=1, feature_group_count=middle, name="depthwise")(y)
        y = batch_norm(train, name="depthwise_norm", **types)(y)
        y = conv(self.features, 1, self.stride, name="conv2")(y)
        y = batch_norm(train, name="norm2", **types)(y)
        return nn.relu(_shortcut(self, x, train) + y)


class Bottleneck(nn.Module):
    """The bottleneck of ResNet-50: 1×1-BN-ReLU, middle, 1×1-BN, shortcut, ReLU after the sum.

    Attributes:
      features: P, channels of the middle; the output has 4P.
      stride: of the middle.
      middle: None is 3×3-BN-ReLU; otherwise it makes the `CSC` in that place, from `features`,
        `stride`, `shortcut` and the arguments of all layers.
    """

    features: int
    stride: int = 1
    middle: Callable[..., CSC] | None = None
    dtype: Any = None
    param_dtype: Any = jnp.float32
    kernel_init: Initializer = he_init

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], train: bool = False):
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = partial(_conv, kernel_init=self.kernel_init, **types)
        y = conv(self.features, 1, name="conv1")(x)
        y = nn.relu(batch_norm(train, name="norm1", **types)(y))
        if self.middle is None:
            y = conv(self.features, 3, self.stride, padding=1, name="conv2")(y)
            y = nn.relu(batch_norm(train, name="norm2", **types)(y))
        else:
            y = self.middle(
                features=self.features,
                stride=self.stride,
                shortcut="none",
                kernel_init=self.kernel_init,
                name="shift",
                **types,
            )(y, train)
        y = conv(4 * self.features, 1, name="conv3")(y)
        y = batch_norm(train, name="norm3", **types)(y)
        return nn.relu(_shortcut(self, x, train, features=4 * self.features) + y)


def torch_block_names(
    outside: Mapping[str, str], inside: Mapping[str, str]
) -> Callable[[str], str]:
    """Returns the map from module paths to the names that PyTorch's ResNets use.

    It maps `group1_block2/norm1` to `layer1.1.bn1`.

    Args:
      outside: PyTorch names of the modules outside the blocks.
      inside: PyTorch names of the modules in a block, where they are neither the same as ours nor
        `bn1` for `norm1` and so on.
    """
    inside = {"norm1": "bn1", "norm2": "bn2", "norm3": "bn3", **inside}

    def name(path: str) -> str:
        if path in outside:
            return outside[path]
        group, block, layer = path_parts(r"group(\d+)_block(\d+)/(.+)", path)
        return f"layer{group}.{int(block) - 1}.{inside.get(layer, layer)}"

    return name


def _conv(features: int, kernel_size: int, stride: int = 1, padding: int = 0, **kwargs) -> nn.Conv:
    return nn.Conv(
        features, (kernel_size,) * 2, (stride,) * 2, padding=padding, use_bias=False, **kwargs
    )


def _shortcut(
    block: BasicBlock | DepthwiseBlock | Bottleneck,
    x: Array,
    train: bool,
    always_project: bool = False,
    features: int | None = None,
) -> Array:
    """Returns the input, or its strided 1×1 convolution and BatchNorm if the shape changes."""
    features = features or block.features
    types = {"dtype": block.dtype, "param_dtype": block.param_dtype}
    if block.stride == 1 and x.shape[-1] == features and not always_project:
        return x
    conv = partial(_conv, kernel_init=block.kernel_init, name="conv_shortcut", **types)
    x = conv(features, 1, block.stride)(x)
    return batch_norm(train, name="norm_shortcut", **types)(x)
