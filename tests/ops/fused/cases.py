"""The layers on which every backend of `shift_conv` is compared with the definition."""

from dataclasses import dataclass, replace
from functools import partial

import jax.numpy as jnp
import numpy as np

from shift_jax.ops import shift_offsets
from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Relu, Spec
from tests.ops.fused.networks import layers


@dataclass(frozen=True)
class Case:
    """One layer and what surrounds it.

    Attributes:
      shape: of x.
      features, offsets, stride, dtype: of the layer.
      prologue: which of "scale bias relu" it has.
      epilogue: which of "bias residual statistics" it has.
      relu: where the epilogue's ReLU is.
      tile_rows: for the TPU kernels, output rows of a tile; None for their own choice.
      narrow: for the TPU kernels, too little memory for the whole width.
      cores: of the TPU.
      pieces: whether the TPU's tiles are computed in pieces, as only large ones are.
    """

    shape: tuple[int, int, int, int]
    features: int
    offsets: tuple[tuple[int, int], ...]
    stride: int = 1
    dtype: str = "bfloat16"
    prologue: str = ""
    epilogue: str = ""
    relu: Relu = "none"
    tile_rows: int | None = None
    narrow: bool = False
    cores: int = 1
    pieces: bool = False

    @property
    def out_shape(self) -> tuple[int, ...]:
        batch, height, width, _ = self.shape
        return (batch, -(-height // self.stride), -(-width // self.stride), self.features)

    @property
    def spec(self) -> Spec:
        statistics, prologue_relu = "statistics" in self.epilogue, "relu" in self.prologue
        return Spec(self.offsets, self.stride, prologue_relu, self.relu, statistics)

    def operands(self) -> Operands:
        """Returns random arrays, `dy` included.

        The prologue's vectors have few digits. With a 16-bit x it is then exact in float32, so
        that everyone agrees on its rounding and its sign.
        """
        channels = self.shape[-1]

        def random(seed, *shape, dtype=self.dtype, given=True):
            values = np.random.default_rng(seed).normal(size=shape)
            return jnp.asarray(jnp.asarray(values, self.dtype), dtype) if given else None

        few_digits = partial(random, dtype=jnp.float32)
        return Operands(
            x=random(0, *self.shape),
            w=random(1, channels, self.features),
            bias=few_digits(2, self.features, given="bias" in self.epilogue),
            prologue_scale=few_digits(3, channels, given="scale" in self.prologue),
            prologue_bias=few_digits(4, channels, given="bias" in self.prologue),
            residual=random(5, *self.out_shape, given="residual" in self.epilogue),
            dy=random(6, *self.out_shape),
        )


def paper(channels, *args):
    return tuple(map(tuple, shift_offsets(channels, *args).tolist()))


def anywhere(channels, reach, seed=0):
    offsets = np.random.default_rng(seed).integers(-reach, reach + 1, (channels, 2))
    return tuple(map(tuple, offsets.tolist()))


EVERYTHING = {"prologue": "scale bias relu", "epilogue": "bias residual statistics"}

EDGES = {
    # Where channels end.
    "one pixel": Case((1, 1, 1, 16), 8, paper(16)),
    "one row, channels of no group": Case((9, 1, 7, 40), 8, paper(40), relu="last"),
    "one column, k = 7": Case((2, 9, 1, 56), 24, paper(56, 7), prologue="relu"),
    "300 channels, 1 feature": Case(
        (8, 3, 2, 300), 1, paper(300), dtype="float32", prologue="scale", epilogue="bias"
    ),
    "20 channels, 9 features": Case(
        (16, 3, 4, 20), 9, paper(20, 3, 1, "interleaved"), dtype="float32", prologue="bias",
        epilogue="residual", relu="before_residual",
    ),
    "140 channels, 130 features": Case(
        (2, 4, 3, 140), 130, paper(140), prologue="scale relu", epilogue="statistics"
    ),
    # Offsets.
    "dilation 2, interleaved": Case(
        (3, 7, 2, 72), 24, paper(72, 5, 2, "interleaved"), prologue="bias",
        epilogue="residual", relu="before_residual",
    ),
    "from anywhere and nowhere": Case(
        (1, 4, 5, 16), 16, anywhere(16, 7), prologue="scale relu", epilogue="bias statistics"
    ),
    "nothing moves": Case((16, 2, 3, 24), 8, paper(24, 1), prologue="bias relu"),
    "everything leads out": Case(
        (2, 2, 3, 16), 8, ((5, 0), (0, -9)) * 8, epilogue="bias statistics", relu="last"
    ),
    # Strides.
    "stride 2, even": Case((16, 4, 6, 40), 8, paper(40), 2, **EVERYTHING, relu="last"),
    "stride 2, odd": Case(
        (9, 5, 3, 20), 9, paper(20, 3, 2), 2, "float32", **EVERYTHING, relu="before_residual"
    ),
    "stride 2, one row": Case((2, 1, 6, 50), 8, anywhere(50, 3), 2),
    "stride 3, from anywhere": Case(
        (2, 7, 6, 18), 4, anywhere(18, 4), 3, prologue="bias", epilogue="statistics"
    ),
    # Batches.
    "33 images": Case(
        (33, 2, 3, 20), 8, paper(20), prologue="scale bias", epilogue="statistics"
    ),
    "33 images and everything around": Case(
        (33, 3, 2, 24), 8, paper(24), **EVERYTHING, relu="last"
    ),
}  # fmt: skip

# What only the TPU's kernels cut.

NETWORKS = [
    ("shiftnet_a", {}),
    ("shiftnet_b", {}),
    ("shiftnet_c", {}),
    ("shiftresnet20", {"expansion": 3}),
    ("shiftresnet20", {"expansion": 9}),
    ("shiftresnet50", {}),
]


def layer_case(height, width, channels, features, spec, batch=16) -> Case:
    """A layer with the prologue and the epilogue that it has in the network."""
    prologue = "scale bias relu" if spec.prologue_relu else ""
    epilogue = "statistics" if spec.statistics else ""
    shape = (batch, height, width, channels)
    return Case(
        shape, features, spec.offsets, spec.stride, "bfloat16", prologue, epilogue, spec.relu
    )


def small_layers() -> dict[str, Case]:
    """The layers of all networks on the smallest image that all of their offsets reach into.

    Every fourth is in float32.
    """
    found = {}
    for name, arguments in NETWORKS:
        for *_, channels, features, spec in layers(name, **arguments):
            reach = max(max(map(abs, offset)) for offset in spec.offsets)
            size = -(-(reach + 1) // spec.stride) * spec.stride
            case = layer_case(size + spec.stride * (reach == 1), size, channels, features, spec)
            key = f"{channels}-{features}-k{2 * reach + 1}-s{spec.stride}"
            found.setdefault(key, case)
    return {
        key: replace(case, dtype="float32", shape=(8, *case.shape[1:])) if i % 4 == 3 else case
        for i, (key, case) in enumerate(found.items())
    }


def shiftnet_a_layers() -> dict[str, Case]:
    return {
        f"{size[0]}-{size[2]}-{features}-s{spec.stride}": layer_case(*size, features, spec, 2)
        for *size, features, spec in layers("shiftnet_a")
    }
