"""The pointwise convolution in front of a `shift_conv`, in one kernel with it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from shift_jax.errors import InputError
from shift_jax.layers import CSC
from shift_jax.ops import shift_conv
from shift_jax.ops.fused import call
from shift_jax.ops.fused.tpu import plan

# (B, H, W), D, C, N, k, stride; the second one is padded by the stride.
SHAPES = [
    ((8, 6, 6), 16, 40, 16, 3, 1),
    ((9, 7, 5), 16, 140, 24, 3, 2),
    ((8, 8, 8), 3, 40, 9, 5, 2),
]


def arguments(shape, dtype=jnp.float32):
    (batch, height, width), inputs, channels, features, _, stride = shape
    rng = np.random.default_rng(0)

    def normal(*size, scale=1.0):
        return jnp.asarray(scale * rng.normal(size=size), dtype)

    return (
        normal(batch, height, width, inputs),
        normal(inputs, channels, scale=inputs**-0.5),
        normal(channels, features, scale=channels**-0.5),
        normal(channels),
        normal(batch, -(-height // stride), -(-width // stride), features),
    )


def module(shape, x, expand, w, bias, residual, **kwargs):
    _, _, _, _, k, stride = shape
    return shift_conv(
        x,
        w,
        expand=expand,
        prologue_bias=bias,
        prologue_relu=True,
        residual=residual,
        relu_before_residual=True,
        kernel_size=k,
        stride=stride,
        **kwargs,
    )


def two_steps(shape, x, expand, w, bias, residual):
    return module(shape, x @ expand, None, w, bias, residual, implementation="xla")


@pytest.mark.parametrize("shape", SHAPES)
def test_is_the_two_convolutions_one_after_the_other(shape):
    arrays = arguments(shape)
    assert_allclose(module(shape, *arrays), two_steps(shape, *arrays), rtol=1e-5, atol=1e-5)

    def loss(function):
        return jax.grad(lambda *arrays: jnp.sum(function(shape, *arrays) ** 2), range(5))

    for found, wanted in zip(loss(module)(*arrays), loss(two_steps)(*arrays), strict=True):
        assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("budget", ["whole image", "strips"])
def test_in_the_tpu_kernel(shape, budget, monkeypatch):
    arrays = arguments(shape)
    # The smallest memory that suffices, or all of it.
    sizes = range(10, 24) if budget == "strips" else [None]
    for size in sizes:
        if size is not None:
            monkeypatch.setattr(plan, "_VMEM_BYTES", 2**size)
        jax.clear_caches()  # Plans are made when a call is compiled.
        try:
            with call.INTERPRET(True):
                y = module(shape, *arrays, implementation="pallas_tpu")
            break
        except InputError:
            continue
    assert_allclose(y, two_steps(shape, *arrays), rtol=1e-5, atol=1e-5)


def test_a_module_is_one_kernel_in_inference():
    layer = CSC(16, expansion=2, implementation="pallas_tpu")
    x = jnp.asarray(np.random.default_rng(0).normal(size=(8, 5, 6, 16)), jnp.float32)
    by_xla = CSC(16, expansion=2, implementation="xla")
    variables = by_xla.init(jax.random.key(0), x)
    plain = by_xla.apply(variables, x)
    with call.INTERPRET(True):
        fused = jax.jit(layer.apply)
        assert_allclose(fused(variables, x), plain, rtol=1e-5, atol=1e-5)
        equations = str(jax.make_jaxpr(layer.apply)(variables, x))
    assert equations.count("shift_conv[") == 1


def test_expand_of_another_shape_is_refused():
    x, expand, w, bias, residual = arguments(SHAPES[0])
    with pytest.raises(InputError, match=r"expand has shape \(15, 40\), expected \(16, channels\)"):
        module(SHAPES[0], x, expand[1:], w, bias, residual)
