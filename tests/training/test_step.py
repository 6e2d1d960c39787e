import jax
import jax.numpy as jnp
import optax
import pytest

from shift_jax.training.mesh import make_mesh
from shift_jax.training.step import init_state, make_train_step


class Learner:
    """One weight, whose loss tells the random number it was given."""

    def init(self, rng):
        return {"params": {"kernel": jax.random.normal(rng, (1,))}}

    def loss(self, variables, batch, rng):
        loss = (variables["params"]["kernel"] * batch["x"]).mean()
        return loss, ({}, {"random": jax.random.uniform(rng)})


def randoms(seed, steps=3):
    mesh = make_mesh(jax.devices()[:1])
    optimizer = optax.sgd(0.1)
    state = init_state(Learner(), optimizer, seed, mesh)
    train_step = make_train_step(Learner(), optimizer, mesh)
    values = []
    for _ in range(steps):
        state, metrics = train_step(state, {"x": jnp.ones(4)})
        values.append(float(metrics["random"]))
    assert int(state.step) == steps
    return values


def test_each_step_of_each_seed_has_its_own_random_numbers():
    assert randoms(seed=0) == randoms(seed=0)
    assert len({*randoms(seed=0), *randoms(seed=1)}) == 6


def test_gradient_norm_is_reported_before_the_update():
    mesh = make_mesh(jax.devices()[:2])
    state = init_state(Learner(), optax.sgd(0.1), 0, mesh)
    before = float(state.params["kernel"][0])
    train_step = make_train_step(Learner(), optax.sgd(0.1), mesh)
    state, metrics = train_step(state, {"x": jnp.asarray([1.0, 3.0])})
    assert float(metrics["gradient_norm"]) == 2.0
    assert float(state.params["kernel"][0]) == pytest.approx(before - 0.2, rel=1e-6)
