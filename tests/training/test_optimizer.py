import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shift_jax.config import OptimizerConfig, ScheduleConfig
from shift_jax.errors import InputError
from shift_jax.training.optimizer import make_optimizer, make_schedule

PARAMS = {
    "conv": {"kernel": np.asarray([1.0, -2.0]), "bias": np.asarray([0.5])},
    "norm": {"scale": np.asarray([1.5])},
}
# (layer, name) of every parameter.
NAMES = [("conv", "kernel"), ("conv", "bias"), ("norm", "scale")]


def gradients(step):
    rng = np.random.default_rng(step)
    return {
        layer: {n: rng.normal(size=v.shape).astype(np.float32) for n, v in p.items()}
        for layer, p in PARAMS.items()
    }


def run(optimizer, steps):
    params = {layer: {n: jnp.asarray(v) for n, v in p.items()} for layer, p in PARAMS.items()}
    state = optimizer.init(params)
    for step in range(steps):
        updates, state = optimizer.update(gradients(step), state, params)
        params = optax.apply_updates(params, updates)
    return params


def pytorch_sgd(
    steps, *, lr=0.1, momentum=0.9, decay=0.0, decayed=NAMES, restart=None, nesterov=False,
    clip=None, decoupled=False,
):  # fmt: skip
    """torch.optim.SGD's update, written out."""
    params = {(a, b): PARAMS[a][b].copy() for a, b in NAMES}
    buffers = {}
    for step in range(steps):
        if restart and step % restart == 0:
            buffers = {}
        grads = gradients(step)
        norm = np.sqrt(sum((grads[a][b] ** 2).sum() for a, b in NAMES))
        for a, b in NAMES:
            gradient = grads[a][b] * (min(1.0, clip / norm) if clip else 1.0)
            weight_decay = (decay if (a, b) in decayed else 0.0) * params[a, b]
            if not decoupled:
                gradient = gradient + weight_decay
            buffers[a, b] = momentum * buffers[a, b] + gradient if (a, b) in buffers else gradient
            update = gradient + momentum * buffers[a, b] if nesterov else buffers[a, b]
            params[a, b] = params[a, b] - lr * (update + (weight_decay if decoupled else 0))
    return params


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"decay": 5e-4}),
        ({"weight_decay": 0.1, "restart_momentum_each_epoch": True}, {"decay": 0.1, "restart": 3}),
        ({"weight_decay": 0.1, "nesterov": True}, {"decay": 0.1, "nesterov": True}),
        (
            {"weight_decay": 0.1, "weight_decay_on": "kernels"},
            {"decay": 0.1, "decayed": [("conv", "kernel")]},
        ),
        (
            {"weight_decay": 0.1, "weight_decay_coupled": False},
            {"decay": 0.1, "decoupled": True},
        ),
        ({"weight_decay": 0.1, "clip_norm": 0.5}, {"decay": 0.1, "clip": 0.5}),
        ({"momentum": 0.0, "weight_decay": 0.0}, {"momentum": 0.0}),
    ],
)
def test_sgd_is_pytorchs(changes, expected):
    config = OptimizerConfig(**changes)
    params = run(make_optimizer(config, lambda step: 0.1, steps_per_epoch=3), steps=8)
    for (layer, name), value in pytorch_sgd(8, **expected).items():
        np.testing.assert_allclose(params[layer][name], value, rtol=2e-5, err_msg=name)


def schedule(**changes):
    return make_schedule(ScheduleConfig(**changes), steps_per_epoch=391, total_steps=164 * 391)


def test_the_papers_steps():
    """0.1 for 82 epochs of 391 steps, 0.01 for 41 and 0.001 for 41."""
    rate = schedule(boundaries_epochs=(82, 123))
    for first, last, value in ((0, 82, 0.1), (82, 123, 0.01), (123, 164, 0.001)):
        assert rate(first * 391) == pytest.approx(value)
        assert rate(last * 391 - 1) == pytest.approx(value)


def test_cosine_falls_to_zero():
    rate = schedule(name="cosine")
    assert rate(0) == pytest.approx(0.1)
    assert rate(82 * 391) == pytest.approx(0.05)
    assert rate(164 * 391) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("name", ["step", "cosine", "constant"])
def test_warmup_rises_from_zero_without_delaying_the_rest(name):
    plain, warm = schedule(name=name), schedule(name=name, warmup_epochs=2)
    assert warm(0) == pytest.approx(0.1 / 782)
    assert warm(390) == pytest.approx(plain(390) / 2)
    assert warm(5000) == pytest.approx(plain(5000))


def pytorch_adam(steps, *, lr=0.1, decay=0.0, decoupled=False, betas=(0.9, 0.999), eps=1e-8):
    """torch.optim.Adam's update, or AdamW's, written out."""
    params = {(a, b): PARAMS[a][b].copy() for a, b in NAMES}
    first = {key: np.zeros_like(value) for key, value in params.items()}
    second = {key: np.zeros_like(value) for key, value in params.items()}
    for step in range(steps):
        for a, b in NAMES:
            gradient = gradients(step)[a][b].astype(np.float64)
            weight_decay = decay * params[a, b]
            if not decoupled:
                gradient = gradient + weight_decay
            first[a, b] = betas[0] * first[a, b] + (1 - betas[0]) * gradient
            second[a, b] = betas[1] * second[a, b] + (1 - betas[1]) * gradient**2
            m = first[a, b] / (1 - betas[0] ** (step + 1))
            v = second[a, b] / (1 - betas[1] ** (step + 1))
            update = m / (np.sqrt(v) + eps) + (weight_decay if decoupled else 0)
            params[a, b] = params[a, b] - lr * update
    return params


@pytest.mark.parametrize(("decay", "decoupled"), [(0.0, False), (0.1, False), (0.1, True)])
def test_adam_is_pytorchs(decay, decoupled):
    config = OptimizerConfig(name="adam", weight_decay=decay, weight_decay_coupled=not decoupled)
    ours = run(make_optimizer(config, optax.constant_schedule(0.1), 10), 5)
    for (layer, name), expected in pytorch_adam(5, decay=decay, decoupled=decoupled).items():
        np.testing.assert_allclose(ours[layer][name], expected, rtol=1e-4)


@pytest.mark.parametrize("coupled", [True, False])
def test_adamw_is_pytorchs(coupled):
    config = OptimizerConfig(
        name="adamw",
        weight_decay=0.1,
        weight_decay_coupled=coupled,  # Never, for AdamW.
        betas=(0.8, 0.95),
        eps=1e-3,
    )
    ours = run(make_optimizer(config, optax.constant_schedule(0.1), 10), 5)
    expected = pytorch_adam(5, decay=0.1, decoupled=True, betas=(0.8, 0.95), eps=1e-3)
    for (layer, name), value in expected.items():
        np.testing.assert_allclose(ours[layer][name], value, rtol=1e-4)


def test_factors_of_the_learning_rate_by_name():
    config = OptimizerConfig(
        weight_decay=0.1, learning_rate_factors=("conv/b=0.5", "conv=0", "norm=3")
    )
    ours = run(make_optimizer(config, lambda step: 0.1, 10), 4)
    factors = {("conv", "kernel"): 0, ("conv", "bias"): 0.5, ("norm", "scale"): 3}
    for (layer, name), factor in factors.items():
        expected = pytorch_sgd(4, decay=0.1, lr=0.1 * factor)[layer, name]
        np.testing.assert_allclose(ours[layer][name], expected, rtol=2e-5)


def test_frozen_parameters_stay_and_have_no_momentum():
    config = OptimizerConfig(weight_decay=0.1, clip_norm=0.5, frozen=("conv/b", "norm"))
    optimizer = make_optimizer(config, lambda step: 0.1, 10)
    ours = run(optimizer, 4)
    np.testing.assert_array_equal(ours["conv"]["bias"], PARAMS["conv"]["bias"])
    np.testing.assert_array_equal(ours["norm"]["scale"], PARAMS["norm"]["scale"])
    assert (ours["conv"]["kernel"] != PARAMS["conv"]["kernel"]).all()
    momenta = [x for x in jax.tree.leaves(optimizer.init(PARAMS)) if x.ndim]
    assert [x.shape for x in momenta] == [(2,)]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"frozen": ("kernel",)}, "no parameter's name begins so, only with conv, norm"),
        ({"frozen": ("norn",)}, "Did you mean 'norm'"),
        ({"frozen": ("conv", "n")}, "which leaves no parameter to train"),
        ({"learning_rate_factors": ("head=2",)}, "has 'head', but no parameter's name begins so"),
        ({"learning_rate_factors": ("conv",)}, "has 'conv', expected a beginning of names and"),
        ({"learning_rate_factors": ("conv=x",)}, "has 'conv=x', expected a beginning of names"),
        ({"learning_rate_factors": ("conv=-1",)}, "has 'conv=-1', expected a beginning"),
        ({"learning_rate_factors": ("conv=inf",)}, "has 'conv=inf', expected a beginning"),
        ({"learning_rate_factors": ("=2",)}, "has '=2', expected a beginning"),
        ({"betas": (0.9,)}, "optimizer.betas is .* expected 2 numbers"),
        ({"betas": (0.9, 1.0)}, "optimizer.betas is .* below 1"),
        ({"eps": 0.0}, "optimizer.eps is 0.0, expected a number above 0"),
        (
            {"name": "adamax"},
            "optimizer.name is 'adamax', expected 'sgd', 'adam' or 'adamw'. Did you mean 'adam",
        ),
    ],
)
def test_fields_that_do_not_fit(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        optimizer = make_optimizer(OptimizerConfig(**changes), optax.constant_schedule(0.1), 10)
        optimizer.init(PARAMS)
