from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax.layers import CSC, SC2, BatchNorm
from shift_jax.layers import batch_norm as shift_batch_norm
from shift_jax.layers.norm import frozen_norms
from shift_jax.ops import shift_conv
from tests.layers.inputs import X, perturbed

FOLDED = {
    "same": {"features": 18, "expansion": 2},
    "projection": {"features": 24, "stride": 2},
    "pool_concat": {"features": 40, "stride": 2, "shortcut": "pool_concat"},
    "none": {"features": 20, "shortcut": "none"},
}


def everything(layer, variables, x, train):
    """Output, updated statistics and gradients of parameters and input, all in float32."""

    def loss(params, x):
        y, updated = layer.apply(
            {**variables, "params": params}, x, train=train, mutable=["batch_stats"]
        )
        return jnp.sum(jnp.sin(y.astype(jnp.float32))), (y, updated)

    (_, aux), gradients = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))(
        variables["params"], x
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), (*aux, gradients))


def relative_error(actual, expected):
    errors = jax.tree.map(
        lambda a, b: np.linalg.norm(a - b) / (np.linalg.norm(b) + 1e-3), actual, expected
    )
    return max(jax.tree.leaves(errors))


@pytest.mark.parametrize(
    ("module", "shortcut"), [*((CSC, shortcut) for shortcut in FOLDED), (SC2, "same")]
)
@pytest.mark.parametrize("train", [False, True])
def test_folding_batch_norms_changes_nothing_but_the_rounding(module, shortcut, train):
    layer, plain = (module(**FOLDED[shortcut], implementation=name) for name in (None, "xla"))
    variables = perturbed(jax.jit(plain.init)(jax.random.key(0), X))
    expected = everything(plain, variables, X, train)
    assert relative_error(everything(layer, variables, X, train), expected) < 1e-5


@pytest.mark.parametrize("train", [False, True])
def test_folding_batch_norms_in_bfloat16(train):
    wide, layer, plain = (
        CSC(**FOLDED["projection"], implementation=name, dtype=dtype)
        for name, dtype in (("xla", None), (None, jnp.bfloat16), ("xla", jnp.bfloat16))
    )
    variables = perturbed(jax.jit(plain.init)(jax.random.key(0), X))
    expected = everything(wide, variables, X, train)
    error = relative_error(everything(layer, variables, X, train), expected)
    plain_error = relative_error(everything(plain, variables, X, train), expected)
    assert error < max(2 * plain_error, 0.02)


@pytest.mark.parametrize("train", [False, True])
def test_folding_leaves_the_batch_norms_out(train):
    def convolution_inputs(implementation):
        called = []

        def note(call, args, kwargs, context):
            called.append((type(context.module).__name__, context.method_name))
            return call(*args, **kwargs)

        layer = CSC(features=18, implementation=implementation)
        with nn.intercept_methods(note):
            layer.apply(variables, X, train=train, mutable=["batch_stats"])
        return called

    variables = CSC(features=18).init(jax.random.key(0), X)
    assert ("BatchNorm", "__call__") not in convolution_inputs(None)
    assert ("BatchNorm", "__call__") in convolution_inputs("xla")


def test_other_norms_are_called():
    def group_norm(train, **arguments):
        return nn.GroupNorm(num_groups=2, **arguments)

    layer = CSC(features=18, norm=group_norm)
    variables = layer.init(jax.random.key(0), X)
    assert set(variables) == {"params"}
    y = jnp.einsum("bhwc,cn->bhwn", X, variables["params"]["conv1"]["kernel"])
    y = nn.relu(nn.GroupNorm(num_groups=2).apply({"params": variables["params"]["norm1"]}, y))
    y = shift_conv(y, variables["params"]["conv2"]["kernel"])
    y = nn.relu(nn.GroupNorm(num_groups=2).apply({"params": variables["params"]["norm2"]}, y))
    np.testing.assert_allclose(layer.apply(variables, X), X + y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"use_scale": False}, {"use_bias": False}])
@pytest.mark.parametrize("train", [False, True])
def test_coefficients_are_what_flax_does(options, train):
    norm, flax_norm = (
        cls(use_running_average=not train, momentum=0.9, **options)
        for cls in (BatchNorm, nn.BatchNorm)
    )
    statistics = (X.sum((0, 1, 2)), (X**2).sum((0, 1, 2))) if train else None
    method = partial(BatchNorm.coefficients, features=18, statistics=statistics, count=X.size // 18)
    initial = flax_norm.init(jax.random.key(0), X)
    jax.tree.map(
        np.testing.assert_array_equal,
        norm.init(jax.random.key(0), method=method),
        initial,
    )
    variables = perturbed(initial)
    expected, flax_updated = flax_norm.apply(variables, X, mutable=["batch_stats"])
    (scale, bias), updated = norm.apply(variables, mutable=["batch_stats"], method=method)
    actual = X * scale[None, None, None] + bias[None, None, None]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), updated, flax_updated)


def test_statistics_of_devices_are_averaged_over_the_named_axis():
    layer, whole = (
        CSC(features=18, shortcut="none", norm=partial(shift_batch_norm, axis_name=name))
        for name in ("devices", None)
    )
    variables = perturbed(whole.init(jax.random.key(0), X))
    apply = partial(layer.apply, train=True, mutable=["batch_stats"])
    y, updated = jax.vmap(apply, (None, 0), axis_name="devices")(variables, X)
    expected, expected_updated = whole.apply(variables, X, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[0], b, rtol=1e-5, atol=1e-6),
        updated,
        expected_updated,
    )


@pytest.mark.parametrize("implementation", [None, "xla"])
def test_frozen_norms_use_their_running_statistics_in_training(implementation):
    layer = CSC(**FOLDED["projection"], implementation=implementation)
    variables = perturbed(jax.jit(layer.init)(jax.random.key(0), X))

    def run(train, frozen=()):
        with frozen_norms(frozen):
            return jax.jit(partial(layer.apply, train=train, mutable=["batch_stats"]))(variables, X)

    y, updated = run(True, ("norm1", "norm_short"))
    for name, old in variables["batch_stats"].items():
        changed = bool((updated["batch_stats"][name]["mean"] != old["mean"]).any())
        assert changed == (name == "norm2"), name
    assert relative_error(y, run(True)[0]) > 1e-3

    y, updated = run(True, ("norm",))
    assert relative_error(updated["batch_stats"], variables["batch_stats"]) == 0
    assert relative_error(y, run(False)[0]) < 1e-5
