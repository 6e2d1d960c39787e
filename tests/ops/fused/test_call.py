from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import pytest

from shift_jax.ops import shift_conv
from tests.ops.fused.arguments import arrays, assert_trees_close, loss, random


@pytest.mark.parametrize(
    ("name", "mapped", "statistics"),
    [
        (None, ("x",), False),
        (None, ("w",), True),
        ("pallas_tpu", ("x", "residual"), False),
        ("pallas_tpu", ("residual",), True),
        ("pallas_tpu", ("prologue_scale",), False),
    ],
)
def test_vmap_equals_a_loop(kernel, name, mapped, statistics):
    arguments = arrays(2)
    axes = {key: 1 if key in mapped else None for key in arguments}
    for seed, key in enumerate(mapped):
        arguments[key] = jnp.stack([arguments[key], arguments[key] * (2 + seed)], axis=1)
    function = jax.value_and_grad(partial(loss, implementation=name, statistics=statistics))
    actual = jax.jit(jax.vmap(function, (axes,)))(arguments)
    one_by_one = [
        jax.jit(function)({k: v[:, i] if k in mapped else v for k, v in arguments.items()})
        for i in range(2)
    ]
    assert_trees_close(actual, jax.tree.map(lambda *a: jnp.stack(a), *one_by_one))


def test_vmap_of_images_is_one_larger_batch(kernel):
    x, w = arrays()["x"], arrays()["w"]
    function = jax.vmap(lambda x: shift_conv(x, w, implementation="pallas_tpu"))
    text = str(jax.make_jaxpr(function)(x[:, None]))
    assert "scan" not in text and "f32[8,5,4,6] = shift_conv" in text


def test_remat_and_scan(kernel):
    arguments = arrays(2)
    ws = jnp.stack([random(20, 20, seed=s) / 9 for s in range(3)])

    def chain(ws, remat, name):
        def block(x, w):
            return shift_conv(x, w, relu=True, implementation=name), None

        y, _ = jax.lax.scan(jax.checkpoint(block) if remat else block, arguments["x"], ws)
        return jnp.sum(jnp.sin(y))

    expected = jax.grad(partial(chain, remat=False, name="xla"))(ws)
    assert_trees_close(jax.grad(partial(chain, remat=True, name="pallas_tpu"))(ws), expected)
