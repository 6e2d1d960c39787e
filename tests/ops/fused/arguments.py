"""Arguments of `shift_conv` and a loss of them, for the tests of what surrounds the backends."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from shift_jax.ops import shift_conv

ARGUMENTS = ("x", "w", "bias", "prologue_scale", "prologue_bias", "residual")


def random(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def arrays(batch=8, dtype=jnp.float32):
    return {
        "x": random(batch, 5, 4, 20, dtype=dtype),
        "w": random(20, 6, seed=1, dtype=dtype),
        "bias": random(6, seed=2),
        "prologue_scale": random(20, seed=3),
        "prologue_bias": random(20, seed=4),
        "residual": random(batch, 3, 2, 6, seed=5, dtype=dtype),
    }


def loss(arguments, implementation=None, **options):
    """Depends on every output; `arguments` are differentiated."""
    options = {"prologue_relu": True, "relu": True, "statistics": True, "stride": 2, **options}
    out = shift_conv(**arguments, implementation=implementation, **options)
    # The sums are large: without the weights the sine would have no digit left.
    weights = [1, 0.01, 0.001]
    return sum(
        jnp.sum(jnp.sin(leaf.astype(jnp.float32) * weight))
        for leaf, weight in zip(jax.tree.leaves(out), weights, strict=False)
    )


def assert_trees_close(actual, expected, tolerance=1e-5):
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=tolerance, atol=tolerance * 10), actual, expected
    )
