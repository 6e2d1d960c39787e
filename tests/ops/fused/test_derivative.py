from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax.ops import implementation, shift_conv
from tests.ops.fused.arguments import ARGUMENTS, arrays, assert_trees_close, loss, random

OPTIONS = [
    {},
    {"relu": False},
    {"relu": False, "relu_before_residual": True},
    {"statistics": False, "prologue_relu": False},
    {"statistics": False, "relu": False, "relu_before_residual": True},
]
MISSING = [("bias", "prologue_bias"), ("prologue_scale",), ("residual",), ARGUMENTS[2:]]


@pytest.mark.parametrize(
    ("options", "missing"),
    [*((options, ()) for options in OPTIONS), *(({}, missing) for missing in MISSING)],
)
def test_gradients_equal_the_natural_ones(options, missing):
    arguments = {key: value for key, value in arrays(2).items() if key not in missing}
    value, gradients = jax.jit(jax.value_and_grad(partial(loss, **options)))(arguments)
    natural = jax.jit(jax.value_and_grad(partial(loss, implementation="xla", **options)))
    assert_trees_close((value, gradients), natural(arguments))


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[2]])
def test_bfloat16_gradients_have_the_types_of_the_arguments(options):
    arguments = arrays(2, jnp.bfloat16) | {
        "w": arrays()["w"],
        "bias": random(6, dtype=jnp.bfloat16),
    }
    options = {**options, "statistics": False}
    gradients = jax.grad(partial(loss, **options))(arguments)
    assert jax.tree.map(lambda a: a.dtype, gradients) == jax.tree.map(lambda a: a.dtype, arguments)
    arguments = arrays(2, jnp.bfloat16)
    wide = jax.tree.map(lambda a: a.astype(jnp.float32), arguments)
    gradients = jax.grad(partial(loss, **options))(arguments)
    for key, expected in jax.grad(partial(loss, **options))(wide).items():
        error = np.linalg.norm(np.asarray(gradients[key], np.float32) - expected)
        assert error < 0.05 * np.linalg.norm(expected), key


def test_a_large_residual_does_not_hide_the_sign_of_the_relu():
    x, w = jnp.full((1, 1, 1, 1), 2**-4, jnp.bfloat16), jnp.ones((1, 1), jnp.bfloat16)
    residual = jnp.full((1, 1, 1, 1), 1024, jnp.bfloat16)

    def output(x):
        y = shift_conv(x, w, kernel_size=1, residual=residual, relu_before_residual=True)
        return y.astype(jnp.float32).sum()

    assert output(x) == 1024
    assert jax.grad(output)(x).item() == 1
    assert jax.grad(output)(-x).item() == 0


def test_gradients_of_gradients_and_forward_derivatives_of_them():
    arguments = arrays(1)

    def curvature(implementation, arguments):
        of_loss = jax.grad(partial(loss, implementation=implementation))
        return jax.grad(lambda a: sum(jnp.sum(g**2) for g in jax.tree.leaves(of_loss(a))))(
            arguments
        )

    def directional(implementation, arguments):
        of_loss = jax.grad(partial(loss, implementation=implementation))
        return jax.jvp(of_loss, (arguments,), (arguments,))[1]

    for function in (curvature, directional):
        expected = jax.jit(partial(function, "xla"))(arguments)
        actual = jax.jit(partial(function, None))(arguments)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max()),
            actual,
            expected,
        )


def test_forward_mode_needs_xla():
    x, w = arrays()["x"], arrays()["w"]
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: shift_conv(x, w), (x,), (x,))
    with implementation("xla"):
        y, dy = jax.jvp(lambda x: shift_conv(x, w), (x,), (x,))
    np.testing.assert_allclose(y, dy, rtol=1e-5)
