"""An input of the layers, and variables away from their initial values."""

import jax
import jax.numpy as jnp
import numpy as np

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 6, 18)), jnp.float32)
# Weights of the 9 directions of a 3×3 window.
CROSS = (0, 1, 0, 1, 1, 1, 0, 1, 0)


def parameters(module, x=X):
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), x))
    return sum(leaf.size for leaf in jax.tree.leaves(variables.get("params", {})))


def perturbed(variables, seed=1):
    """Variables away from their initial values, so that no scale is 1 and no bias 0."""
    leaves, tree = jax.tree.flatten(variables)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return tree.unflatten(
        [
            leaf + 0.2 * jnp.abs(jax.random.normal(k, leaf.shape))
            for k, leaf in zip(keys, leaves, strict=True)
        ]
    )
