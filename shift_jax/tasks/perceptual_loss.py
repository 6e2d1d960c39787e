"""The perceptual loss of style transfer (Johnson et al., ECCV 2016), as the paper's authors use it.

All images are RGB with pixels in 0..255, and all arrays float32. The convolutions have the default
precision of the device, products of bfloat16 on TPUs and of TF32 on NVIDIA GPUs: with VGG-19 on
photos, rounding so changed the terms of the loss by 1e-4 and the gradient by 5 and 2 % (emulated on
a CPU). The products of Gram matrices, which are summed over all pixels and whose differences are
squared, have full precision; they cost little beside the convolutions.
"""

from __future__ import annotations

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

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float, UInt8

CONTENT_LAYER = "relu2_2"
STYLE_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False, kw_only=True)
class PerceptualLoss:
    """λ_c · content loss + λ_s · style loss + λ_tv · total variation, of images and stylised ones.

    It is a pytree: give it to a jitted function as an argument. A jit that closes over it instead
    makes the weights of VGG, 7 MB to `relu3_3` and 31 MB to `relu4_3`, part of the program.

    The authors' λ_c = 1e5 and λ_s = 1e10 to 1e11 are for torchvision's weights. Keras' are Caffe's,
    which read undivided pixels, so that all features are larger; where they are s times as large,
    the content loss is s² and the style loss s⁴ times as large. For Caffe's, the code of Johnson et
    al., with the same means, has λ_c = 1 (there for `relu3_3`) and λ_s = 5.

    Attributes:
      vgg: the network of the features.
      targets: for each style layer the style image's Gram matrix, from `style_targets`.
      content_layer: where content is compared.
      content_weight: λ_c.
      style_weight: λ_s.
      tv_weight: λ_tv; 0 does without.
    """

    vgg: VggFeatures
    targets: Mapping[str, Float[Array, "c c"]]
    content_layer: str = field(default=CONTENT_LAYER, metadata={"static": True})
    content_weight: float = field(default=1e5, metadata={"static": True})
    style_weight: float = field(default=1e10, metadata={"static": True})
    tv_weight: float = field(default=0.0, metadata={"static": True})

    @property
    def style_layers(self) -> tuple[str, ...]:
        """Where style is compared."""
        return tuple(self.targets)

    def __call__(
        self, outputs: Float[Array, "b h w 3"], images: Float[Array, "b h w 3"]
    ) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        """Returns the loss and its terms, all of them float32.

        Args:
          outputs: the stylised images, pixels in 0..255, which may be exceeded.
          images: what they are made of, pixels in 0..255 of any type.

        Returns:
          The loss, and its terms with their weights, "content_loss", "style_loss" and where
          `tv_weight` is not 0 "tv_loss", of which it is the sum.

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
        return sum(terms.values()), terms


def vgg_features(
    vgg: VggFeatures, images: Float[Array, "b h w 3"], layers: Iterable[str]
) -> dict[str, Float[Array, "b h2 w2 c"]]:
    """Returns the outputs of some of VGG's ReLUs, float32, by their names.

    Convolutions are padded with zeros; between the blocks, the maxima of 2×2 pixels are taken.
    What is deeper than the layers is not computed.

    Args:
      vgg: the network.
      images: pixels in 0..255 of any type.
      layers: names such as "relu2_2", out of `vgg.layers`.

    Raises:
      InputError: a layer that `vgg` does not have, or images of which pooling leaves nothing.
    """
    layers = tuple(layers)
    for layer in layers:
        check_choice("A layer of VGG", layer, vgg.layers)
    # A 1×1 map of block n is what n - 1 poolings leave of 2^(n - 1) pixels.
    check_images(images, smallest=2 ** max(int(layer[4]) - 1 for layer in layers))
    x = (images.astype(jnp.float32) - vgg.mean) / vgg.std
    found = {}
    for name, layer in zip(sorted(vgg.kernels), vgg.layers, strict=True):
        if layer.endswith("_1") and layer != "relu1_1":
            x = max_pool(x, 2, 2)
        kernel, bias = vgg.kernels[name]
        dimensions = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=dimensions)
        x = jax.nn.relu(x + bias)
        if layer in layers:
            found[layer] = x
        if len(found) == len(set(layers)):
            break
    return found


def gram_matrix(features: Float[Array, "b h w c"]) -> Float[Array, "b c c"]:
    """Returns Fᵀ F / (C·H·W) of each image, F being [H·W, C] (Johnson et al., Eq. 3)."""
    batch, height, width, channels = features.shape
    flat = features.reshape(batch, height * width, channels)
    products = jnp.einsum("bpc,bpd->bcd", flat, flat, precision=jax.lax.Precision.HIGHEST)
    return products / (channels * height * width)


def content_loss(
    features: Float[Array, "b h w c"], targets: Float[Array, "b h w c"]
) -> Float[Array, ""]:
    """Returns the mean squared difference (Johnson et al., Eq. 2, and over the batch)."""
    return jnp.mean((features - targets) ** 2)


def style_loss(
    features: Mapping[str, Float[Array, "b h w c"]], targets: Mapping[str, Float[Array, "c c"]]
) -> Float[Array, ""]:
    """Returns how far the Gram matrices are from the style's.

    For each layer of `targets` it is the mean squared difference over the batch and all entries;
    the layers are added up. (Johnson et al., Eq. 4, have the sum over the entries; the authors'
    weights are for the mean.)

    Args:
      features: of the layers in `targets`, others are not looked at.
      targets: Gram matrices, from `style_targets`.
    """
    return sum(
        jnp.mean((gram_matrix(features[layer]) - target) ** 2) for layer, target in targets.items()
    )


def total_variation(images: Float[Array, "b h w c"]) -> Float[Array, ""]:
    """Returns the mean squared difference of pixels one above another, plus of those side by side.

    That is the anisotropic total variation with squares (Mahendran and Vedaldi, CVPR 2015, with
    β = 2) of the code of Johnson et al., which has half the sum. The means, like those of the other
    terms, do not depend on the size of images and batches.
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
      style_image: of the size at which its strokes are to be learned.
      layers: where.

    Raises:
      InputError: another shape or type of image, an image too small, or a layer that `vgg` does
        not have.
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
