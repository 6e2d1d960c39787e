"""SqueezeNet 1.0 and 1.1 (Table 7)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from shift_jax.errors import check_choice
from shift_jax.layers import Initializer, he_init
from shift_jax.models.blocks import ConvNorm, max_pool
from shift_jax.models.network import FeatureMap, Network, check_dropout, check_images
from shift_jax.models.registry import Count, ModelRecord, register
from shift_jax.weights.torch.layout import TorchLayout, path_parts

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

# Features and kernel size of the stem, and the Fire modules that a pooling precedes.
_VERSIONS = {"1.0": (96, 7, (2, 5, 9)), "1.1": (64, 3, (2, 4, 6))}
# Squeeze and expand channels of Fire modules 2 to 9.
_FIRE = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256))


class Fire(nn.Module):
    """A 1×1 convolution that squeezes, then parallel 1×1 and 3×3 convolutions that expand."""

    squeeze: int
    expand: int
    kernel_init: Initializer = he_init
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w n"]:
        conv = partial(
            ConvNorm,
            norm=None,
            kernel_init=self.kernel_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        x = conv(self.squeeze, name="squeeze")(x)
        expanded = [conv(self.expand, k, name=f"expand{k}x{k}")(x) for k in (1, 3)]
        return jnp.concatenate(expanded, axis=-1)


class SqueezeNet(Network, kw_only=True):
    """Stem, eight Fire modules, three poolings, a 1×1 convolution as classifier, average pooling.

    Attributes:
      version: "1.0" or "1.1".
      dropout: rate before the classifier in training, which needs the RNG "dropout".
    """

    version: str = "1.0"
    dropout: float = 0.5

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b num_classes"] | tuple[FeatureMap, ...]:
        check_images(x, smallest=21)
        features, kernel_size, pooled_before = _VERSIONS[self.version]
        x = ConvNorm(features, kernel_size, 2, padding=0, norm=None, name="stem", **self.common)(x)
        maps, stride = [], 2
        for number, (squeeze, expand) in enumerate(_FIRE, start=2):
            if number in pooled_before:
                maps.append(FeatureMap(f"stage{len(maps) + 1}", stride, x))
                x = max_pool(x, 3, 2, ceil=True)
                stride *= 2
            x = Fire(squeeze, expand, name=f"fire{number}", **self.common)(x)
        if self.features_only:
            return (*maps, FeatureMap(f"stage{len(maps) + 1}", stride, x))
        if self.num_classes:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = ConvNorm(self.num_classes, norm=None, name="classifier", **self.common)(x)
            x = x.astype(jnp.float32)
        return x.mean(axis=(1, 2))


def squeezenet(
    *, version: Literal["1.0", "1.1"] = "1.0", dropout: float = 0.5, **common
) -> SqueezeNet:
    """SqueezeNet of Iandola et al. 2016 (Table 7).

    Parameters and MACs at 224×224 of version 1.0 and 1.1: 1,248,424 and 818,924,576; 1,235,496
    and 349,151,936.

    Args:
      version: "1.0" (the paper's) or "1.1" (the authors' later one).
      dropout: see `SqueezeNet`.
      **common: `num_classes` and the other attributes of `shift_jax.models.network.Network`.
    """
    check_choice("version", str(version), _VERSIONS)
    check_dropout(dropout)
    return SqueezeNet(version=str(version), dropout=dropout, **common)


def _torch_layout(arguments: Mapping[str, Any]) -> TorchLayout:
    is_first = str(arguments.get("version", "1.0")) == "1.0"
    # Where the Fire modules are in torchvision's sequence of convolutions, ReLUs and poolings.
    positions = (3, 4, 5, 7, 8, 9, 10, 12) if is_first else (3, 4, 6, 7, 9, 10, 11, 12)

    def name(path: str) -> str:
        if path in ("stem/conv", "classifier/conv"):
            return {"stem/conv": "features.0", "classifier/conv": "classifier.1"}[path]
        number, layer = path_parts(r"fire(\d)/(\w+)/conv", path)
        return f"features.{positions[int(number) - 2]}.{layer}"

    return TorchLayout("torchvision", name)


register(
    ModelRecord(
        "squeezenet",
        squeezenet,
        paper="Iandola et al. 2016, arXiv:1602.07360",
        table="Table 7",
        counts=(Count({}, 1248424, 818924576), Count({"version": "1.1"}, 1235496, 349151936)),
        torch_layout=_torch_layout,
    )
)
