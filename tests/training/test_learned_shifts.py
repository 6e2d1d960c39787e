"""The optimizer of learned shifts, and networks that learn theirs on the digits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shift_jax.config import OptimizerConfig, quickstart
from shift_jax.training.optimizer import make_optimizer
from shift_jax.training.train import train
from tests.learned_shifts import FOUND

START = {"shift": {"offsets": jnp.array([[0.5, -1.0], [2.0, 0.0], [3.0, 3.0]])}}


def run(config, gradient, steps, steps_per_epoch=10):
    optimizer = make_optimizer(config, optax.constant_schedule(0.1), steps_per_epoch)
    params, state = START, optimizer.init(START)
    for _ in range(steps):
        updates, state = optimizer.update({"shift": {"offsets": gradient}}, state, params)
        params = optax.apply_updates(params, updates)
    return (params["shift"]["offsets"] - START["shift"]["offsets"]), state


def test_only_the_direction_of_a_gradient_counts_and_weights_do_not_decay():
    config = OptimizerConfig(weight_decay=0.5)
    moved, _ = run(config, jnp.array([[30.0, -40.0], [0.0, 0.0], [1e-6, 0.0]]), steps=2)
    # With momentum 0.9: one step, then 1.9 of them, of learning rate 0.1 · 0.01.
    np.testing.assert_allclose(moved, -2.9e-3 * np.array([[0.6, -0.8], [0, 0], [1, 0]]), rtol=1e-3)


def test_normalized_gradients_are_the_authors():
    found = FOUND["ops"]["active_shift_stride1"]
    gradient = np.stack([found["dL_dbeta"], found["dL_dalpha"]], -1)[:3]
    config = OptimizerConfig(momentum=0.0, shift_learning_rate_factor=1)
    moved, _ = run(config, jnp.asarray(gradient), steps=1)
    expected = np.array(found["normalised"]).T[:3, ::-1]
    np.testing.assert_allclose(moved / -0.1, expected, rtol=1e-4)


def test_factor_and_raw_gradients():
    config = OptimizerConfig(
        momentum=0.0, shift_learning_rate_factor=0.001, normalize_shift_gradients=False
    )
    gradient = jnp.array([[30.0, -40.0], [0.0, 0.0], [1.0, 0.0]])
    moved, _ = run(config, gradient, steps=1)
    np.testing.assert_allclose(moved, -1e-4 * gradient, rtol=1e-2)


def test_offsets_are_frozen_after_some_epochs():
    gradient = jnp.ones((3, 2))
    config = OptimizerConfig(freeze_shifts_after_epochs=0.5)
    half, _ = run(config, gradient, steps=5)
    later, _ = run(config, gradient, steps=9)
    free, _ = run(OptimizerConfig(), gradient, steps=9)
    np.testing.assert_array_equal(half, later)
    assert half.any() and (abs(free) > abs(half)).all()


def test_the_state_of_other_networks_is_as_it_was():
    params = {"conv": {"kernel": jnp.ones((2, 2))}}
    state = make_optimizer(OptimizerConfig(), optax.constant_schedule(0.1), 1).init(params)
    assert [len(state), len(jax.tree.leaves(state))] == [4, 2]


# The accuracies that 30 epochs reach are in docs/training.md.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments"),
    [("as_resnet_cifar", {}), ("shiftresnet20", {"shift": "sparse", "offsets_init": "uniform"})],
)
def test_networks_learn_their_shifts_on_the_digits(name, arguments, tmp_path):
    config = quickstart()
    config.model.name, config.model.arguments = name, arguments
    config.epochs, config.eval_every_epochs = 6.0, 6.0
    config.optimizer.freeze_shifts_after_epochs = 3.0 if arguments else 0.0
    config.tensorboard = False
    assert train(config, tmp_path)["top1"] > 0.9
