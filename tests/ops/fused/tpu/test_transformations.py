"""Transformations of JAX on the TPU kernels, through the public function."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from shift_jax.ops import shift_conv
from shift_jax.ops.fused import call
from tests.ops.fused.backend_tests import FAST_COMPILE
from tests.ops.fused.cases import Case


def public_loss(arguments, name, **options):
    y = shift_conv(**arguments, prologue_relu=True, stride=2, implementation=name, **options)
    return jnp.sum(jnp.sin(y.astype(jnp.float32)))


def public_arrays(**more) -> dict:
    case = Case((8, 3, 4, 18), 8, (), dtype="float32", prologue="scale")
    arrays = case.operands().present()
    return {key: arrays[key] for key in ("x", "w", "prologue_scale")} | more


def assert_same(function):
    """function(arguments, implementation) gives the same with the kernels and without."""
    compiled = partial(jax.jit, static_argnums=1, compiler_options=FAST_COMPILE)
    arguments = public_arrays()
    expected = compiled(function)(arguments, "xla")
    with call.INTERPRET(True):
        traced = compiled(function).trace(arguments, "pallas_tpu")
        actual = traced.lower().compile()(arguments)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-4), actual, expected)
    return str(traced.jaxpr)


def test_vmap_over_x_runs_the_kernels_on_one_larger_batch():
    def function(arguments, name):
        xs = arguments["x"].reshape(2, 4, *arguments["x"].shape[1:])
        arguments = {k: v for k, v in arguments.items() if k != "x"}
        one = lambda x: shift_conv(x, **arguments, implementation=name)  # noqa: E731
        return jax.vmap(one)(xs)

    assert "scan" not in assert_same(function)


def test_vmap_over_x_and_w_runs_the_kernels_one_after_the_other():
    def function(arguments, name):
        x, w = arguments["x"][:4], arguments["w"]
        pairs = jnp.stack([x, x * 2]), jnp.stack([w, w - 1])
        gradients = jax.grad(lambda x, w: public_loss({"x": x, "w": w}, name), argnums=(0, 1))
        return jax.vmap(gradients)(*pairs)

    assert "scan" in assert_same(function)


def test_remat_and_gradients_of_gradients_through_the_kernels():
    def function(arguments, name):
        layer = jax.checkpoint(partial(public_loss, name=name))

        def steepness(arguments):
            gradients = jax.grad(layer)(arguments)
            return sum(jnp.sum(g**2) * 0.01 for g in jax.tree.leaves(gradients))

        return jax.value_and_grad(steepness)(arguments)

    assert_same(function)
