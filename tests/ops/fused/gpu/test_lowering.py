"""The Hopper kernels lowered for a GPU; `test_kernels` runs them in JAX's interpreter.

What no CPU can tell: whether the GPU's compiler takes them, and how fast they are.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.ops.fused import gpu
from shift_jax.ops.fused.operands import Operands
from shift_jax.ops.fused.spec import Spec
from tests.ops.fused.cases import paper


def shiftnet(batch, size, channels, features, kernel_size):
    """The operands of a layer with everything around it, and what it computes."""
    x, y = (
        jax.ShapeDtypeStruct((batch, size, size, width), jnp.bfloat16)
        for width in (channels, features)
    )
    w = jax.ShapeDtypeStruct((channels, features), jnp.bfloat16)
    bias, scale = (jax.ShapeDtypeStruct((width,), jnp.float32) for width in (features, channels))
    spec = Spec(paper(channels, kernel_size), 1, True, "last", True)
    return Operands(x, w, bias, scale, scale, residual=y, dy=y), spec


# Four of ShiftNet-A, and one whose sizes fit no tile.
LAYERS = [
    (256, 56, 256, 64, 5), (256, 28, 512, 128, 5), (256, 14, 768, 256, 3), (256, 7, 1024, 512, 3),
    (1, 5, 72, 24, 3),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS)
def test_lowers_for_cuda_to_one_kernel_that_does_the_shift(layer):
    assert_lowers(layer)


def test_lowers_for_cuda_with_64_bit_types():
    with jax.enable_x64(True):
        assert_lowers(LAYERS[-1])


def assert_lowers(layer):
    operands, spec = shiftnet(*layer)
    in_gradients = replace(operands, bias=None, residual=None)
    functions = {
        gpu.forward: (replace(operands, dy=None), operands.x, {}),
        gpu.input_gradient: (in_gradients, operands.dy, {"size": operands.x.shape[1:3]}),
        gpu.weight_gradient: (replace(in_gradients, w=None), operands.x, {}),
    }
    for function, (given, shifted, options) in functions.items():
        function = jax.jit(partial(function, spec=spec, **options))
        text = function.trace(given).lower(lowering_platforms=("cuda",)).as_text()
        (kernel,) = (line for line in text.splitlines() if "custom_call @mosaic_gpu" in line)
        # The operand that is shifted goes in as it is, but for its shape.
        rows = f"tensor<{np.prod(shifted.shape[:-1])}x{shifted.shape[-1]}xbf16>"
        assert f": ({rows}, " in kernel
        assert f": (tensor<{'x'.join(map(str, shifted.shape))}xbf16>) -> {rows}" in text


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"dtype": jnp.float32}, "takes bfloat16, not float32"),
        ({"stride": 2}, "takes stride 1, not 2"),
        ({"channels": 12}, "multiples of 8 channels and features, not 12 and 8"),
        ({"features": 9}, "multiples of 8 channels and features, not 16 and 9"),
        ({"batch": 0}, "takes 1 to .* pixels, not the 0"),
    ],
)
def test_says_what_it_cannot_do(changes, sentence):
    changes = {
        "dtype": jnp.bfloat16, "stride": 1, "channels": 16, "features": 8, "batch": 1, **changes
    }  # fmt: skip
    x = jnp.zeros((changes["batch"], 4, 4, changes["channels"]), changes["dtype"])
    w = jnp.zeros((changes["channels"], changes["features"]), x.dtype)
    spec = Spec(paper(changes["channels"]), changes["stride"])
    size = 4 // changes["stride"]
    dy = jnp.zeros((changes["batch"], size, size, changes["features"]), x.dtype)
    reason = gpu.unsupported(x.shape, x.dtype.name, changes["features"], spec)
    assert reason.endswith(".")
    for call in (
        lambda: gpu.forward(Operands(x, w), spec=spec),
        lambda: gpu.input_gradient(Operands(w=w, dy=dy), spec=spec, size=(4, 4)),
        lambda: gpu.weight_gradient(Operands(x, dy=dy), spec=spec),
    ):
        with pytest.raises(InputError, match=sentence) as raised:
            call()
        assert str(raised.value) == reason


def test_can_do_the_layers_of_shiftnet():
    for layer in LAYERS:
        operands, spec = shiftnet(*layer)
        x, w = operands.x, operands.w
        for dtype in (x.dtype, "bfloat16"):
            assert gpu.unsupported(x.shape, dtype, w.shape[1], spec) is None
