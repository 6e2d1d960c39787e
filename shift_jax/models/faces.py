"""FaceNet and ShiftFaceNet: a trunk and an embedding (Tables 8 and 9)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import flax.linen as nn

from shift_jax.errors import InputError, positive_int
from shift_jax.layers import OffsetsInit, ShiftKind, batch_norm
from shift_jax.models.blocks import ShiftModule
from shift_jax.models.inception_resnet import InceptionResNetV1
from shift_jax.models.network import FeatureMap, Network, check_dropout
from shift_jax.models.registry import Count, ModelRecord, register
from shift_jax.models.shiftnet import shiftnet
from shift_jax.weights.torch.layout import TorchLayout, path_parts

if TYPE_CHECKING:
    from jax import Array
    from jaxtyping import Float


class FaceNet(Network, kw_only=True):
    """A trunk, dropout, a linear embedding without bias, BatchNorm and an optional classifier.

    Attributes:
      trunk: maps images to features [B, features], or to feature maps if `features_only`.
      embedding_size: width of the embedding; None leaves it out and returns the trunk's features.
      dropout: rate before the embedding in training; above 0 it needs the RNG "dropout".
    """

    trunk: Network
    num_classes: int = 0
    embedding_size: int | None = 512
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], train: bool = False
    ) -> Float[Array, "b features"] | tuple[FeatureMap, ...]:
        x = self.trunk(x, train)
        if self.features_only:
            return x
        if self.embedding_size is not None:
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
            x = nn.Dense(self.embedding_size, use_bias=False, name="embedding", **self.common)(x)
            types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
            x = batch_norm(train, epsilon=1e-3, name="embedding_norm", **types)(x)
        return self.classify(x)


def facenet(
    *,
    embedding_size: int | None = 512,
    dropout: float = 0.0,
    repeats: tuple[int, int, int] = (5, 10, 5),
    num_classes: int = 0,
    **common,
) -> FaceNet:
    """FaceNet: Inception-ResNet-v1 with an embedding (Tables 8 and 9).

    Parameters and MACs at 160×160: the trunk 22,564,096 and 1,416,744,800; with the 512-d embedding
    23,482,624 and 1,417,662,304; with a softmax over 10,000 identities 28,612,624 (closest to Table
    9's 28.5 M) and 1,422,782,304.

    Args:
      embedding_size, dropout: see `FaceNet`.
      repeats: see `InceptionResNetV1`.
      num_classes: number of identities of a softmax after the embedding; 0 returns the embedding,
        without L2 normalization.
      **common: the other attributes of `shift_jax.models.network.Network`.
    """
    if not isinstance(repeats, list | tuple) or len(repeats) != 3:
        raise InputError(f"repeats is {repeats!r}, expected three positive integers.")
    a, b, c = (positive_int("repeats", each) for each in repeats)
    trunk = InceptionResNetV1(repeats=(a, b, c), **common)
    return _facenet(trunk, embedding_size, dropout, num_classes, common)


def shiftfacenet(
    *,
    embedding_size: int | None = 128,
    dropout: float = 0.0,
    module: ShiftModule = "csc",
    order: str = "grouped",
    shift: ShiftKind = "fixed",
    offsets_init: OffsetsInit = "grid",
    implementation: str | None = None,
    num_classes: int = 0,
    **common,
) -> FaceNet:
    """ShiftFaceNet: ShiftNet-C without its classifier, with an embedding (Tables 8 and 9).

    Parameters and MACs at 160×160: the trunk 527,136 and 79,257,600; with a 128-d embedding 560,160
    and 79,290,368; with a 512-d embedding 659,232 and 79,388,672. Table 9's 0.78 M is the size of
    ShiftNet-C with its ImageNet classifier.

    Args:
      embedding_size, dropout: see `FaceNet`.
      module: "csc" or "sc2" (Figure 3).
      order, implementation: see `shift_jax.layers.CSC`.
      shift, offsets_init: whether and how the shifts are learned, see `shift_jax.layers.CSC`; the
        counts are those of fixed ones.
      num_classes: as for `facenet`.
      **common: the other attributes of `shift_jax.models.network.Network`.
    """
    trunk = shiftnet(
        "c",
        num_classes=0,
        module=module,
        order=order,
        shift=shift,
        offsets_init=offsets_init,
        implementation=implementation,
        **common,
    )
    return _facenet(trunk, embedding_size, dropout, num_classes, common)


def _facenet(trunk, embedding_size, dropout, num_classes, common) -> FaceNet:
    check_dropout(dropout)
    if embedding_size is not None:
        embedding_size = positive_int("embedding_size", embedding_size)
    return FaceNet(
        trunk=trunk,
        embedding_size=embedding_size,
        dropout=dropout,
        num_classes=num_classes,
        **common,
    )


def _torch_layout(arguments: Mapping[str, Any]) -> TorchLayout:
    """Returns the layout of Tim Esler's facenet-pytorch."""
    stem = ("1a", "2a", "2b", "3b", "4a", "4b")
    reductions = {"reduction_a": "mixed_6a", "reduction_b": "mixed_7a"}
    outside = {"embedding": "last_linear", "embedding_norm": "last_bn", "classifier": "logits"}

    def branch(path: str, is_single: bool) -> str:
        # facenet-pytorch does not number the convolution of a branch that has only one.
        b, c, layer = path_parts(r"branch(\d)_conv(\d)/(\w+)", path)
        layer = "bn" if layer == "norm" else layer
        return f"branch{b}.{layer}" if is_single else f"branch{b}.{c}.{layer}"

    def name(path: str) -> str:
        if path in outside:
            return outside[path]
        part, rest = path.removeprefix("trunk/").split("/", 1)
        if part in reductions:
            is_single = part == "reduction_a" and rest.startswith("branch0")
            return f"{reductions[part]}.{branch(rest, is_single)}"
        if part.startswith("conv"):
            return f"conv2d_{stem[int(part[4:]) - 1]}.{'bn' if rest == 'norm' else rest}"
        stage, block = path_parts(r"stage(\d)_(?:block)?(\w+)", part)
        prefix = "block8" if block == "last" else f"repeat_{stage}.{int(block) - 1}"
        if rest == "up":
            return f"{prefix}.conv2d"
        rest = rest.removeprefix("branches/")
        return f"{prefix}.{branch(rest, is_single=rest.startswith('branch0'))}"

    return TorchLayout("facenet-pytorch", name)


for _build, _layout, _paper, _counts in (
    (
        facenet,
        _torch_layout,
        "Szegedy et al. 2016, arXiv:1602.07261; Schroff et al. 2015, arXiv:1503.03832",
        (
            Count({}, 23482624, 1417662304),
            Count({"embedding_size": None}, 22564096, 1416744800),
            Count({"num_classes": 10000}, 28612624, 1422782304),
        ),
    ),
    (
        shiftfacenet,
        None,
        "Wu et al. 2018, arXiv:1711.08141, Section 3.3",
        (
            Count({}, 560160, 79290368),
            Count({"embedding_size": None}, 527136, 79257600),
            Count({"embedding_size": 512}, 659232, 79388672),
        ),
    ),
):
    register(
        ModelRecord(
            _build.__name__,
            _build,
            paper=_paper,
            table="Tables 8 and 9",
            counts=_counts,
            image_shape=(160, 160, 3),
            num_classes=0,
            mean=(0.5, 0.5, 0.5),
            std=(128 / 255,) * 3,
            crop=1.0,
            torch_layout=_layout,
        )
    )
