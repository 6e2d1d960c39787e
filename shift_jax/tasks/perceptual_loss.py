"""The perceptual loss of style transfer (Johnson et al., ECCV 2016), as the paper's authors use it.

All images are RGB with pixels in 0..255, and all arrays are float32. The convolutions run in the
default precision of the device, which multiplies in bfloat16 on TPUs and in TF32 on NVIDIA GPUs.
Emulated on a CPU with VGG-19 on photos, this rounding changes the terms of the loss by 1e-4 and the
gradient by 5 % and 2 %. The products of Gram matrices, which sum over all pixels and whose
differences are squared, run in full precision; they cost little beside the convolutions.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from shift_jax.errors import InputError, check_choice
from shift_jax.models.blocks import max_pool
from shift_jax.models.network import check_images
from shift_jax.models.vgg_features import VggFeatures
from shift_jax.ops.channels import per_channel

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, UInt8

CONTENT_LAYER = "relu2_2"
STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, kw_only=True)
class PerceptualLoss:
    """λ_c · content loss + λ_s · style loss + λ_tv · total variation of stylized images.

    It is a pytree: pass it to a jitted function as an argument. A jit that closes over it makes the
    weights of VGG part of the program: 7 MB up to `relu3_3` and 31 MB up to `relu4_3`.

    The authors' λ_c = 1e5 and λ_s = 1e10 to 1e11 suit torchvision's weights. Keras' weights are
    Caffe's, which read pixels in 0..255, so that all features are larger. Features that are s times
    as large make the content loss s² and the style loss s⁴ times as large. For Caffe's weights, the
    code of Johnson et al., with the same means, uses λ_c = 1 (for `relu3_3`) and λ_s = 5.

    Attributes:
      vgg: the network that computes the features.
      targets: the Gram matrix of the style image for each style layer, from `style_targets`.
      content_layer: the layer that compares content.
      content_weight: λ_c.
      style_weight: λ_s.
      tv_weight: λ_tv; 0 leaves the term out.
    """

    vgg: VggFeatures
    targets: Mapping[str, Float[Array, "c c"]]
    content_layer: str = field(default=CONTENT_LAYER, metadata={"static": True})
    content_weight: float = field(default=1e5, metadata={"static": True})
    style_weight: float = field(default=1e10, metadata={"static": True})
    tv_weight: float = field(default=0.0, metadata={"static": True})

    @property
    def style_layers(self) -> tuple[str, ...]:
        """The layers that compare style."""
        return tuple(self.targets)

    def __call__(
        self, outputs: Float[Array, "b h w 3"], images: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Returns the loss and its terms, all of them float32.

        Args:
          outputs: the stylized images, pixels in about 0..255.
          images: the images before, pixels in 0..255 of any type.

        Returns:
          The loss, and the weighted terms that it sums: "content_loss", "style_loss" and, if
          `tv_weight` is not 0, "tv_loss".

        Raises:
          InputError: a layer that `vgg` does not have, or images too small for it.
        """
        found = vgg_features(self.vgg, outputs, (self.content_layer, *self.targets))
        wanted = vgg_features(self.vgg, images, (self.content_layer,))[self.content_layer]
        content = content_loss(found[self.content_layer], wanted)
        terms = {
            "content_loss": self.content_weight * content,
            "style_loss": self.style_weight * style_loss(found, self.targets),
        }
        if self.tv_weight:
            terms["tv_loss"] = self.tv_weight * total_variation(outputs)
        return functools.reduce(operator.add, terms.values()), terms


def vgg_features(
    vgg: VggFeatures, images: Float[Array, "b h w 3"], layers: Iterable[str]
) -> dict[str, Float[Array, "b h2 w2 c"]]:
    """Returns the outputs of some of VGG's ReLUs, float32, by their names.

    Convolutions pad with zeros; 2×2 max pooling separates the blocks. Deeper layers than the
    deepest of `layers` are not computed.

    Args:
      vgg: the network.
      images: pixels in 0..255 of any type.
      layers: names such as "relu2_2" from `vgg.layers`.

    Raises:
      InputError: a layer that `vgg` does not have, or images too small for the poolings.
    """
    layers = tuple(layers)
    for layer in layers:
        check_choice("A layer of VGG", layer, vgg.layers)
    # n - 1 poolings shrink 2^(n - 1) pixels to one pixel of block n.
    check_images(images, smallest=2 ** max(int(layer[4]) - 1 for layer in layers))
    x = images.astype(jnp.float32)
    x = (x - per_channel(vgg.mean, x)) / per_channel(vgg.std, x)
    found = {}
    for name, layer in zip(sorted(vgg.kernels), vgg.layers, strict=True):
        if layer.endswith("_1") and layer != "relu1_1":
            x = max_pool(x, 2, 2)
        kernel, bias = vgg.kernels[name]
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        x = jax.nn.relu(x + per_channel(bias, x))
        if layer in layers:
            found[layer] = x
        if len(found) == len(set(layers)):
            break
    return found


def gram_matrix(features: Float[Array, "b h w c"]) -> Float[Array, "b c c"]:
    """Returns Fᵀ F / (C·H·W) for each image, where F is [H·W, C] (Johnson et al., Eq. 3)."""
    batch, height, width, channels = features.shape
    flat = features.reshape(batch, height * width, channels)
    products = jnp.einsum("bpc,bpd->bcd", flat, flat, precision=jax.lax.Precision.HIGHEST)
    return products / (channels * height * width)


def content_loss(
    features: Float[Array, "b h w c"], targets: Float[Array, "b h w c"]
) -> Float[Array, ""]:
    """Returns the mean squared difference over the batch (Johnson et al., Eq. 2)."""
    return jnp.mean((features - targets) ** 2)


def style_loss(
    features: Mapping[str, Float[Array, "b h w c"]], targets: Mapping[str, Float[Array, "c c"]]
) -> Float[Array, ""]:
    """Returns how far the Gram matrices are from those of the style.

    It sums over the layers of `targets` the mean squared difference over the batch and all entries.
    (Johnson et al., Eq. 4, sum over the entries; the authors' weights suit the mean.)

    Args:
      features: by layer; layers that are not in `targets` have no effect.
      targets: Gram matrices, from `style_targets`.
    """
    each = (
        jnp.mean((gram_matrix(features[layer]) - target[None]) ** 2)
        for layer, target in targets.items()
    )
    return functools.reduce(operator.add, each)


def total_variation(images: Float[Array, "b h w c"]) -> Float[Array, ""]:
    """Returns the mean squared difference of vertical neighbors plus that of horizontal neighbors.

    This is the squared anisotropic total variation (Mahendran and Vedaldi, CVPR 2015, with β = 2)
    in the code of Johnson et al., which takes half the sum. Means do not depend on the size of
    images and batches, like the other terms.
    """
    images = images.astype(jnp.float32)
    down, right = images[:, 1:] - images[:, :-1], images[:, :, 1:] - images[:, :, :-1]
    return jnp.mean(down**2) + jnp.mean(right**2)


def style_targets(
    vgg: VggFeatures, style_image: UInt8[np.ndarray, "h w 3"], layers: Iterable[str] = STYLE_LAYERS
) -> dict[str, Float[Array, "c c"]]:
    """Returns the Gram matrices of a style image, float32 [C, C], by layer.

    Args:
      vgg: the network.
      style_image: in the size at which its strokes should be learned.
      layers: of VGG.

    Raises:
      InputError: another shape or dtype, an image that is too small, or a layer that `vgg` does not
        have.
    """
    if style_image.dtype != np.uint8 or style_image.ndim != 3 or style_image.shape[2] != 3:
        raise InputError(
            f"The style image is {style_image.dtype} {style_image.shape}, expected uint8 [height, "
            "width, 3]: convert it to RGB."
        )
    layers = tuple(layers)

    @jax.jit
    def targets(vgg: VggFeatures, images: Array) -> dict[str, Array]:
        features = vgg_features(vgg, images, layers)
        return {layer: gram_matrix(features[layer])[0] for layer in features}

    return targets(vgg, style_image[None])
