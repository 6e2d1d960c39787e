"""Johnson et al.'s image transformer for style transfer, original and with shifts (Table 10)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from shift_jax import ops
from shift_jax.errors import check_choice
from shift_jax.layers import Initializer, ShiftConv, bias_init_for, he_init
from shift_jax.models import style_torch
from shift_jax.models.network import FeatureMap, Network, check_images
from shift_jax.models.registry import Count, ModelRecord, register

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float

Variant = Literal["released", "text"]


class Kernels(NamedTuple):
    """Kernel sizes of the layers outside the residual blocks, whose kernels are 3×3.

    Attributes:
      down: of the first three convolutions, which downsample.
      up: of the last three, the first two of which upsample.
      keeps_up2: whether the shift network keeps the second upsampling convolution.
    """

    down: tuple[int, int, int]
    up: tuple[int, int, int]
    keeps_up2: bool


_KERNELS = {
    "released": Kernels((9, 7, 3), (5, 7, 9), keeps_up2=True),
    "text": Kernels((9, 3, 3), (3, 3, 9), keeps_up2=False),
}


RESIDUAL_BLOCKS = 5
EPSILON = 1e-5
"""The ε of all norms."""
SMALLEST_SIDE = 5
"""In pixels; larger than the padding of any reflection."""


class StyleConv(nn.Module):
    """A convolution with reflection padding, or a zero-filled shift and a pointwise convolution.

    Attributes:
      features: number of output channels.
      kernel_size, stride: of the convolution or the shift.
      use_shift: whether it is the shift.
      upsample: factor of the nearest-neighbor upsampling before the convolution.
      pad: whether the convolution reflects at the borders; otherwise its output is smaller.
      order, implementation: of the shift, see `shift_jax.layers.ShiftConv`.
    """

    features: int
    kernel_size: int
    stride: int = 1
    use_shift: bool = False
    upsample: int = 1
    pad: bool = True
    order: ops.Order = "grouped"
    implementation: ops.Implementation | None = None
    kernel_init: Initializer = he_init
    dtype: Any = None
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h_out w_out n"]:
        if self.upsample > 1:
            b, h, w, c = x.shape
            x = jnp.broadcast_to(
                x[:, :, None, :, None], (b, h, self.upsample, w, self.upsample, c)
            ).reshape(b, self.upsample * h, self.upsample * w, c)
        common = {
            "kernel_init": self.kernel_init,
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }
        if self.use_shift:
            return ShiftConv(
                self.features,
                self.kernel_size,
                stride=self.stride,
                order=self.order,
                use_bias=True,
                implementation=self.implementation,
                bias_init=bias_init_for(self.kernel_init, x.shape[-1]),
                name="conv",
                **common,
            )(x)
        half = self.kernel_size // 2
        if self.pad:
            x = jnp.pad(x, [(0, 0), (half, half), (half, half), (0, 0)], mode="reflect")
        return nn.Conv(
            self.features,
            (self.kernel_size, self.kernel_size),
            (self.stride, self.stride),
            padding="VALID",
            bias_init=bias_init_for(self.kernel_init, self.kernel_size**2 * x.shape[-1]),
            name="conv",
            **common,
        )(x)


class StyleTransformer(Network, kw_only=True):
    """Three convolutions down, five residual blocks, three convolutions up; images in and out.

    An affine InstanceNorm follows every convolution but the last, which has no activation either.
    Residual blocks are conv-norm-ReLU-conv-norm and the sum, without a ReLU after it. Pixels are in
    0..255. The sides of the output are those of the input, rounded up to a multiple of 4.

    Attributes:
      kernels: see `Kernels`.
      use_shift: whether shifts replace all convolutions but the first, the last and, in the
        released variant, one more. Residual blocks are then SC² (Figure 3) without the last ReLU,
        not CSC: shift, 1×1, norm, ReLU, shift, 1×1, norm and the sum.
      order, implementation: of the shifts, see `shift_jax.layers.ShiftConv`.
    """

    num_classes: int = 0
    kernels: Kernels = _KERNELS["released"]
    use_shift: bool = False
    order: ops.Order = "grouped"
    implementation: ops.Implementation | None = None

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w 3"], train: bool = False
    ) -> Float[Array, "b h_out w_out 3"] | tuple[FeatureMap, ...]:
        check_images(x, smallest=SMALLEST_SIDE)
        layers = self.convolutions()
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}

        def layer(x, name):
            x = StyleConv(name=name, **layers[name])(x)
            # E[x²] − E[x]² would cancel digits, which shows in the picture.
            norm = nn.InstanceNorm(
                use_fast_variance=False, epsilon=EPSILON, name=f"{name}_norm", **types
            )
            return norm(x)

        maps = []
        for stride, name in ((1, "down1"), (2, "down2"), (4, "down3")):
            x = nn.relu(layer(x, name))
            maps.append(FeatureMap(name, stride, x))
        for index in range(1, RESIDUAL_BLOCKS + 1):
            y = nn.relu(layer(x, f"residual{index}_conv1"))
            x = x + layer(y, f"residual{index}_conv2")
        maps.append(FeatureMap("residual", 4, x))
        for stride, name in ((2, "up1"), (1, "up2")):
            x = nn.relu(layer(x, name))
            maps.append(FeatureMap(name, stride, x))
        if self.features_only:
            return tuple(maps)
        return StyleConv(name="up3", **layers["up3"])(x).astype(jnp.float32)

    @nn.nowrap
    def convolutions(self) -> dict[str, dict[str, Any]]:
        """Returns the arguments of each `StyleConv` by its name, first layer first."""
        down, up = self.kernels.down, self.kernels.up
        shift = self.use_shift
        residual = {
            f"residual{index}_conv{number}": (128, 3, 1, 1, shift)
            for index in range(1, RESIDUAL_BLOCKS + 1)
            for number in (1, 2)
        }
        # Features, kernel size, stride, factor of the upsampling, and whether it is a shift.
        table = {
            "down1": (32, down[0], 1, 1, False),
            "down2": (64, down[1], 2, 1, shift),
            "down3": (128, down[2], 2, 1, shift),
            **residual,
            "up1": (64, up[0], 1, 2, shift),
            "up2": (32, up[1], 1, 2, shift and not self.kernels.keeps_up2),
            "up3": (3, up[2], 1, 1, False),
        }
        names = ("features", "kernel_size", "stride", "upsample", "use_shift")
        common = {"order": self.order, "implementation": self.implementation, **self.common}
        return {key: dict(zip(names, row, strict=True)) | common for key, row in table.items()}


def style_transformer(*, variant: Variant = "released", **common) -> StyleTransformer:
    """Johnson et al.'s image transformer with InstanceNorm (arXiv:1603.08155, 1607.08022).

    Parameters and MACs at 256×256: 1,974,147 and 18,937,282,560 for the variant in the authors'
    released code (kernels 9/7/3 … 5/7/9), which is Table 10's 1.9 M; 1,679,235 and 10,078,912,512
    for the variant in the paper's text (kernels 9/3/3 … 3/3/9).

    Args:
      variant: "released" or "text".
      **common: attributes of `shift_jax.models.network.Network`.
    """
    return StyleTransformer(kernels=_kernels(variant), **common)


def shift_style_transformer(
    *,
    variant: Variant = "released",
    order: ops.Order = "grouped",
    implementation: ops.Implementation | None = None,
    **common,
) -> StyleTransformer:
    """The image transformer with shifts and pointwise convolutions (Table 10).

    Parameters and MACs at 256×256: 302,979 and 8,468,299,776 for the released variant, which is
    Table 10's 0.3 M and keeps one 7×7 convolution; 204,675 and 2,025,848,832 for the text's
    variant. Shifts have the kernel sizes of the convolutions that they replace. The released
    variant's 7×7 shift of 32 channels has 49 directions, more than channels, so it moves nothing,
    and only the pointwise convolution remains.

    Args:
      variant: as for `style_transformer`.
      order, implementation: see `shift_jax.layers.ShiftConv`.
      **common: as for `style_transformer`.
    """
    return StyleTransformer(
        kernels=_kernels(variant),
        use_shift=True,
        order=order,
        implementation=implementation,
        **common,
    )


def _kernels(variant: Variant) -> Kernels:
    check_choice("variant", variant, _KERNELS)
    return _KERNELS[variant]


for _build, _layout, _paper, _counts in (
    (
        style_transformer,
        style_torch.style_layout,
        "Johnson et al. 2016, arXiv:1603.08155",
        (
            Count({}, 1974147, 18937282560),
            Count({"variant": "text"}, 1679235, 10078912512),
        ),
    ),
    (
        shift_style_transformer,
        style_torch.shift_style_layout,
        "Wu et al. 2018, arXiv:1711.08141, Section 3.4",
        (
            Count({}, 302979, 8468299776),
            Count({"variant": "text"}, 204675, 2025848832),
        ),
    ),
):
    register(
        ModelRecord(
            _build.__name__,
            _build,
            paper=_paper,
            table="Table 10",
            counts=_counts,
            image_shape=(256, 256, 3),
            num_classes=None,
            # The network reads pixels in 0..255; only the perceptual loss normalizes.
            mean=(0.0, 0.0, 0.0),
            std=(1 / 255,) * 3,
            crop=1.0,
            torch_layout=_layout,
        )
    )
