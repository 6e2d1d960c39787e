import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shift_jax.config import OptimizerConfig
from shift_jax.layers import batch_norm
from shift_jax.tasks import make_task
from shift_jax.training.mesh import make_mesh
from shift_jax.training.optimizer import make_optimizer, make_schedule
from shift_jax.training.runs.checkpoint_files import restore_variables
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.step import (
    abstract_state,
    init_state,
    make_eval_step,
    make_train_step,
    make_update,
)


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


class Regression:
    """Least squares on centred rows: like BatchNorm, what a row gives depends on its batch."""

    def __init__(self, centred=True):
        self.centred = centred

    def init(self, rng):
        return {
            "params": {"kernel": jax.random.normal(rng, (16, 8))},
            "batch_stats": {"mean": jnp.zeros(16)},
        }

    def loss(self, variables, batch, rng):
        mean = batch["x"].mean(0) if self.centred else jnp.zeros(16)
        y = (batch["x"] - mean) @ variables["params"]["kernel"]
        batch_stats = {"mean": 0.9 * variables["batch_stats"]["mean"] + 0.1 * mean}
        metrics = {"largest": jnp.abs(y).max(), "random": jax.random.uniform(rng)}
        return ((y - batch["y"]) ** 2).mean(), (batch_stats, metrics)

    def evaluation_outputs(self, variables, batch):
        return {"sum": (batch["x"] @ variables["params"]["kernel"]).sum()}


def regression_batch(seed=0, rows=32):
    x, y = jax.random.split(jax.random.key(seed))
    return {"x": 1 + jax.random.normal(x, (rows, 16)), "y": jax.random.normal(y, (rows, 8))}


def one_step(learner, fsdp=1, batch=None, **options):
    """(state before, state after, metrics) of one step of plain descent on eight devices."""
    mesh = make_mesh(jax.devices()[:8], fsdp)
    optimizer = optax.sgd(1.0)
    before = init_state(learner, optimizer, 0, mesh)
    kept = jax.tree.map(jnp.copy, before)  # The step donates its state.
    after, metrics = make_train_step(learner, optimizer, mesh, **options)(
        before, batch or regression_batch()
    )
    return kept, after, metrics


def test_accumulation_is_the_mean_over_the_strided_parts():
    learner, parts = Regression(), 4
    before, after, metrics = one_step(learner, accumulation_steps=parts)
    batch = regression_batch()
    gradients, losses, largest = [], [], []

    @jax.jit
    def literal(params, batch_stats, rows):
        def loss(params):
            variables = {"params": params, "batch_stats": batch_stats}
            return learner.loss(variables, rows, jax.random.key(0))

        return jax.value_and_grad(loss, has_aux=True)(params)

    batch_stats = before.batch_stats
    for part in range(parts):
        rows = {key: value[part::parts] for key, value in batch.items()}
        (loss, (batch_stats, of_part)), gradient = literal(before.params, batch_stats, rows)
        gradients.append(gradient["kernel"])
        losses.append(float(loss))
        largest.append(float(of_part["largest"]))
    step = np.asarray(before.params["kernel"] - after.params["kernel"])
    np.testing.assert_allclose(step, np.mean(gradients, axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(after.batch_stats["mean"], batch_stats["mean"], rtol=1e-5)
    assert float(metrics["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(metrics["largest"]) == pytest.approx(np.mean(largest), rel=1e-5)
    # The order of the parts shows in the running mean alone, which the first part changes least.
    means = np.stack([np.asarray(batch["x"][part::parts]).mean(0) for part in range(parts)])
    weights = 0.1 * 0.9 ** np.arange(parts)[::-1]
    np.testing.assert_allclose(after.batch_stats["mean"], weights @ means, rtol=1e-5)


def test_accumulation_changes_nothing_where_rows_do_not_depend_on_each_other():
    _, plain, metrics = one_step(Regression(centred=False))
    _, accumulated, same = one_step(Regression(centred=False), accumulation_steps=4)
    np.testing.assert_allclose(
        accumulated.params["kernel"], plain.params["kernel"], rtol=1e-5, atol=1e-6
    )
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-5)
    assert float(same["gradient_norm"]) == pytest.approx(float(metrics["gradient_norm"]), rel=1e-5)


def test_fsdp_shares_the_state_and_computes_the_same_step(monkeypatch):
    monkeypatch.setattr("shift_jax.training.mesh._SMALLEST_SHARDED_ELEMENTS", 1)
    _, plain, metrics = one_step(Regression())
    _, shared, same = one_step(Regression(), fsdp=4)
    kernel = shared.params["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (4, 8)
    assert plain.params["kernel"].sharding.is_fully_replicated
    np.testing.assert_allclose(kernel, plain.params["kernel"], rtol=1e-5, atol=1e-6)
    assert float(same["loss"]) == pytest.approx(float(metrics["loss"]), rel=1e-5)


def test_the_average_follows_its_recurrence_and_is_what_is_evaluated_and_restored(tmp_path):
    decay = 0.3  # (1 + step) / (10 + step) is less in the steps 0, 1 and 2.
    mesh = make_mesh(jax.devices()[:8])
    optimizer = optax.sgd(0.1)
    state = init_state(Regression(), optimizer, 0, mesh, ema=True)
    train_step = make_train_step(Regression(), optimizer, mesh, ema_decay=decay)
    average = np.asarray(state.params["kernel"])
    for step in range(6):
        state, _ = train_step(state, regression_batch(step))
        d = np.float32(min(decay, (1 + step) / (10 + step)))
        average = d * average + (1 - d) * np.asarray(state.params["kernel"])
        np.testing.assert_allclose(state.ema["params"]["kernel"], average, rtol=1e-6)
    assert not np.allclose(average, state.params["kernel"], rtol=1e-2)

    batch = regression_batch()
    sums = make_eval_step(Regression(), mesh)(state.evaluation_variables(), batch)
    expected = (np.asarray(batch["x"]) @ average).sum()
    assert float(sums["sum"]) == pytest.approx(expected, rel=1e-4)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(6, state, config={})
    variables, _ = restore_variables(tmp_path / "checkpoints" / "6")
    assert (
        variables["params"]["kernel"].tobytes()
        == np.asarray(state.ema["params"]["kernel"]).tobytes()
    )


def test_one_wish_to_stop_comes_back_from_both_steps():
    mesh = make_mesh(jax.devices()[:8])
    train_step = make_train_step(Regression(), optax.sgd(1.0), mesh)
    eval_step = make_eval_step(Regression(), mesh)
    for asked in ((), (5,), (0, 31)):
        stop = np.isin(np.arange(32), asked)
        batch = regression_batch() | {"stop": jnp.asarray(stop)}
        state = init_state(Regression(), optax.sgd(1.0), 0, mesh)
        assert bool(eval_step(state.evaluation_variables(), batch)["stop"]) == bool(asked)
        state, metrics = train_step(state, batch)
        assert bool(metrics["stop"]) == bool(asked)
        assert int(state.step) == 1


class TwoLayers(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        for name in ("first", "second"):
            x = batch_norm(train, name=f"{name}_norm")(nn.Dense(8, name=name)(x))
        return x


class Layered:
    """Least squares by two layers with BatchNorm."""

    def init(self, rng):
        return TwoLayers().init(rng, jnp.zeros((1, 16)), train=False)

    def loss(self, variables, batch, rng):
        y, updated = TwoLayers().apply(variables, batch["x"], train=True, mutable=["batch_stats"])
        return ((y - batch["y"]) ** 2).mean(), (updated["batch_stats"], {})


@pytest.mark.parametrize("parts", [1, 2])
def test_frozen_layers_stay_as_they_are(parts):
    mesh = make_mesh(jax.devices()[:1])
    frozen = ("first",)
    config = OptimizerConfig(weight_decay=0.1, frozen=frozen)
    optimizer = make_optimizer(config, optax.constant_schedule(0.1), 10)
    state = init_state(Layered(), optimizer, 0, mesh)
    before = jax.tree.map(np.asarray, (state.params, state.batch_stats))
    train_step = make_train_step(
        Layered(), optimizer, mesh, accumulation_steps=parts, frozen=frozen
    )
    for _ in range(2):
        state, _ = train_step(state, regression_batch())
    for old, new in zip(before, (state.params, state.batch_stats), strict=True):
        for layer, leaves in old.items():
            for name, leaf in leaves.items():
                changed = (np.asarray(new[layer][name]) != leaf).any()
                # Before a BatchNorm a bias has no gradient, but rounding and decay.
                assert changed == layer.startswith("second"), (layer, name)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_a_step_and_an_evaluation_promote_no_rank(tiny_config, optimizer):
    tiny_config.mixup_alpha, tiny_config.label_smoothing = 0.2, 0.1
    tiny_config.optimizer.name, tiny_config.optimizer.clip_norm = optimizer, 1.0
    task, mesh = make_task(tiny_config), make_mesh(jax.devices()[:1])
    schedule = make_schedule(tiny_config.schedule, 8, 16)
    transformation = make_optimizer(tiny_config.optimizer, schedule, 8)
    images = jax.ShapeDtypeStruct((4, *task.image_shape), np.uint8)
    batch = {"image": images, "label": jax.ShapeDtypeStruct((4,), np.int32)}
    update = make_update(task, transformation, mesh, accumulation_steps=2, ema_decay=0.9)
    with jax.numpy_rank_promotion("raise"):
        state = abstract_state(task, transformation, 0, mesh, ema=True)
        jax.eval_shape(update, state, batch)
        masked = {**batch, "mask": jax.ShapeDtypeStruct((4,), bool)}
        jax.eval_shape(task.evaluation_outputs, state.evaluation_variables(), masked)
