from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.layers import (
    CSC,
    SC2,
    BatchNorm,
    Shift,
    ShiftConv,
    he_init,
    pytorch_bias_init,
    pytorch_init,
)
from shift_jax.layers import batch_norm as shift_batch_norm
from shift_jax.ops import allocate_offsets, shift, shift_conv, shift_offsets

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 6, 18)), jnp.float32)


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


def batch_norm(x, params, stats):
    scale = params["scale"] / jnp.sqrt(stats["var"] + 1e-5)
    return (x - stats["mean"]) * scale + params["bias"]


def test_shift_layer_is_the_op_without_parameters():
    layer = Shift(kernel_size=3, dilation=2, order="interleaved")
    y, variables = layer.init_with_output(jax.random.key(0), X)
    np.testing.assert_array_equal(y, shift(X, 3, 2, "interleaved"))
    assert not variables


def test_shift_conv_layer_is_the_op():
    layer = ShiftConv(features=5, stride=2, use_bias=True, bias_init=jax.random.normal)
    y, variables = layer.init_with_output(jax.random.key(0), X)
    params = variables["params"]
    assert params["kernel"].shape == (18, 5)
    np.testing.assert_allclose(
        y, shift_conv(X, params["kernel"], params["bias"], stride=2), rtol=1e-6
    )


@pytest.mark.parametrize(("module", "first_kernel_size"), [(CSC, 1), (SC2, 3)])
def test_modules_equal_figure_3(module, first_kernel_size):
    layer = module(features=24, expansion=2, stride=2, dilation=2)
    variables = perturbed(layer.init(jax.random.key(0), X))
    params, stats = variables["params"], variables["batch_stats"]
    y = shift_conv(X, params["conv1"]["kernel"], kernel_size=first_kernel_size, dilation=2)
    y = jnp.maximum(batch_norm(y, params["norm1"], stats["norm1"]), 0)
    y = shift_conv(y, params["conv2"]["kernel"], dilation=2, stride=2)
    y = jnp.maximum(batch_norm(y, params["norm2"], stats["norm2"]), 0)
    projected = X[:, ::2, ::2] @ params["conv_shortcut"]["kernel"]
    y += batch_norm(projected, params["norm_shortcut"], stats["norm_shortcut"])
    np.testing.assert_allclose(layer.apply(variables, X), y, rtol=2e-5, atol=2e-5)
    assert (y < 0).any(), "the test must see that no ReLU follows the shortcut"


# --- BatchNorm folded into the convolutions ----------------------------------------------------

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
    np.testing.assert_allclose(X * scale + bias, expected, rtol=1e-5, atol=1e-5)
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


def test_out_scale_multiplies_kernel_and_bias():
    layer = ShiftConv(features=5, use_bias=True, bias_init=jax.random.normal)
    variables = layer.init(jax.random.key(0), X)
    scale, bias = jnp.arange(1.0, 6), jnp.arange(5.0)
    y = layer.apply(variables, X, out_scale=scale, bias=bias)
    np.testing.assert_allclose(y, layer.apply(variables, X) * scale + bias, rtol=1e-4, atol=1e-5)


def test_expansion_is_relative_to_in_or_out_and_may_be_fractional():
    def middle(**kwargs):
        variables = jax.eval_shape(
            lambda: CSC(features=30, shortcut="none", **kwargs).init(jax.random.key(0), X)
        )
        return variables["params"]["conv1"]["kernel"].shape[1]

    assert middle(expansion=2) == 36
    assert middle(expansion=2, expansion_reference="out") == 60
    assert middle(expansion=0.5, expansion_reference="out") == 15
    assert middle(expansion=1 / 3) == 6


@pytest.mark.parametrize("shortcut", ["identity_or_projection", "pool_concat", "pool_pad"])
def test_same_shape_adds_the_input_itself(shortcut):
    layer = CSC(features=18, shortcut=shortcut)
    variables = layer.init(jax.random.key(0), X)
    alone = CSC(features=18, shortcut="none")
    np.testing.assert_allclose(layer.apply(variables, X), X + alone.apply(variables, X), rtol=1e-6)


def test_pool_concat_puts_the_pooled_input_first():
    layer = CSC(features=40, stride=2, shortcut="pool_concat")
    variables = layer.init(jax.random.key(0), X)
    y = layer.apply(variables, X)
    assert y.shape == (2, 4, 3, 40)
    assert variables["params"]["conv2"]["kernel"].shape == (18, 22)
    np.testing.assert_allclose(y[0, 1, 1, :18], X[0, 1:4, 1:4].mean((0, 1)), rtol=1e-5, atol=1e-6)
    # At the corner the window has four pixels of the image and five zeros.
    np.testing.assert_allclose(y[0, 0, 0, :18], X[0, :2, :2].sum((0, 1)) / 9, rtol=1e-5, atol=1e-6)
    assert (y[..., 18:] >= 0).all()


def test_pool_pad_adds_zeros_in_the_new_channels():
    layer = CSC(features=24, stride=2, shortcut="pool_pad")
    variables = layer.init(jax.random.key(0), X)
    added = layer.apply(variables, X) - CSC(features=24, stride=2, shortcut="none").apply(
        variables, X
    )
    assert parameters(layer) == parameters(CSC(features=24, stride=2, shortcut="none"))
    np.testing.assert_allclose(
        added[0, 1, 1, :18], X[0, 1:4, 1:4].mean((0, 1)), rtol=1e-4, atol=1e-5
    )
    assert not np.asarray(added[..., 18:]).any()


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (7, 6), (8, 8)])
@pytest.mark.parametrize("shortcut", ["identity_or_projection", "pool_concat", "pool_pad", "none"])
def test_strided_shapes_round_up(size, shortcut):
    x = jnp.zeros((1, *size, 10))
    layer = CSC(features=20, stride=2, shortcut=shortcut)
    shape = jax.eval_shape(lambda: layer.init_with_output(jax.random.key(0), x)[0]).shape
    assert shape == (1, -(-size[0] // 2), -(-size[1] // 2), 20)


@pytest.mark.parametrize("shortcut", ["identity_or_projection", "pool_concat", "pool_pad", "none"])
def test_any_number_of_batch_axes(shortcut):
    layer = CSC(features=20, stride=2, shortcut=shortcut)
    variables = layer.init(jax.random.key(0), X)
    expected = layer.apply(variables, X)
    np.testing.assert_allclose(layer.apply(variables, X[0]), expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        layer.apply(variables, X[None]), expected[None], rtol=1e-5, atol=1e-6
    )


def test_channel_order_is_absorbed_by_the_pointwise_weights():
    """Eq. 9: permuting the shift's channels with the weights on both sides changes nothing."""
    permutation = np.random.default_rng(3).permutation(36)
    layer = CSC(features=18, expansion=2)
    variables = perturbed(layer.init(jax.random.key(0), X))
    other = CSC(features=18, expansion=2, offsets=shift_offsets(36)[permutation])
    params, stats = dict(variables["params"]), dict(variables["batch_stats"])
    params["conv1"] = {"kernel": params["conv1"]["kernel"][:, permutation]}
    params["norm1"] = jax.tree.map(lambda v: v[permutation], params["norm1"])
    params["conv2"] = {"kernel": params["conv2"]["kernel"][permutation]}
    stats["norm1"] = jax.tree.map(lambda v: v[permutation], stats["norm1"])
    expected = layer.apply(variables, X)
    permuted = other.apply({"params": params, "batch_stats": stats}, X)
    np.testing.assert_allclose(permuted, expected, rtol=1e-5, atol=1e-5)
    # And it matters: without the permutation of the weights the result is another one.
    assert not np.allclose(other.apply(variables, X), expected, atol=1e-2)


def test_train_mode_updates_the_statistics():
    layer = CSC(features=18)
    variables = layer.init(jax.random.key(0), X)
    _, updated = layer.apply(variables, X, train=True, mutable=["batch_stats"])
    first = X @ variables["params"]["conv1"]["kernel"]
    np.testing.assert_allclose(
        updated["batch_stats"]["norm1"]["mean"], 0.1 * first.mean((0, 1, 2)), rtol=1e-4, atol=1e-6
    )


def test_without_norm_there_are_biases_and_no_statistics():
    variables = CSC(features=18, norm=None).init(jax.random.key(0), X)
    assert set(variables) == {"params"}
    assert set(variables["params"]["conv1"]) == {"kernel", "bias"}


def test_bfloat16_computation_keeps_float32_parameters():
    layer = CSC(features=20, dtype=jnp.bfloat16)
    y, variables = layer.init_with_output(jax.random.key(0), X)
    assert y.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    wide = CSC(features=20).apply(variables, X)
    np.testing.assert_allclose(np.asarray(y, np.float32), wide, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("convert", [np.asarray, tuple, list, np.ndarray.tolist])
def test_modules_with_explicit_offsets_compare_and_hash(convert):
    first = CSC(features=18, offsets=shift_offsets(18))
    second = CSC(features=18, offsets=convert(shift_offsets(18)))
    assert first == second and hash(first) == hash(second)
    assert first != CSC(features=18, offsets=-shift_offsets(18))


# --- Allocations -------------------------------------------------------------------------------

CROSS = (0, 1, 0, 1, 1, 1, 0, 1, 0)


def test_direction_weights_are_the_offsets_that_they_allocate():
    offsets = allocate_offsets(18, 3, CROSS, dilation=2)
    weighted = Shift(dilation=2, direction_weights=CROSS).apply({}, X)
    np.testing.assert_array_equal(weighted, shift(X, offsets=offsets))
    assert not np.array_equal(weighted, shift(X, dilation=2))

    first, second = (
        ShiftConv(5, dilation=2, **arguments)
        for arguments in ({"direction_weights": CROSS}, {"offsets": offsets})
    )
    variables = first.init(jax.random.key(0), X)
    np.testing.assert_array_equal(first.apply(variables, X), second.apply(variables, X))
    np.testing.assert_array_equal(first.channel_offsets(18), offsets)
    np.testing.assert_array_equal(second.channel_offsets(18), offsets)
    plain = ShiftConv(5, order="interleaved").channel_offsets(18)
    np.testing.assert_array_equal(plain, shift_offsets(18, order="interleaved"))


@pytest.mark.parametrize("module", [CSC, SC2])
def test_direction_weights_of_modules_are_those_of_all_their_shifts(module):
    layer = module(features=20, expansion=2, norm=None, shortcut="none", direction_weights=CROSS)
    variables = layer.init(jax.random.key(0), X)
    conv1, conv2 = (variables["params"][name]["kernel"] for name in ("conv1", "conv2"))
    shifted = shift(X, offsets=allocate_offsets(18, 3, CROSS)) if module is SC2 else X
    y = nn.relu(jnp.einsum("bhwc,cn->bhwn", shifted, conv1))
    y = shift(y, offsets=allocate_offsets(36, 3, CROSS))
    y = nn.relu(jnp.einsum("bhwc,cn->bhwn", y, conv2))
    np.testing.assert_allclose(layer.apply(variables, X), y, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("convert", [list, np.asarray, lambda weights: list(map(float, weights))])
def test_modules_with_direction_weights_compare_and_hash(convert):
    for module in (partial(CSC, 18), partial(ShiftConv, 18), Shift):
        first, second = module(direction_weights=CROSS), module(direction_weights=convert(CROSS))
        assert first == second and hash(first) == hash(second)
        assert first != module(direction_weights=(1, *CROSS[1:]))


@pytest.mark.parametrize(
    "layer", [partial(CSC, 18), partial(SC2, 18), partial(ShiftConv, 5), Shift]
)
def test_direction_weights_contradict_offsets_and_order(layer):
    for arguments, sentence in (
        ({"offsets": shift_offsets(18)}, "offsets and direction_weights are both given"),
        ({"order": "interleaved"}, "order is 'interleaved', but direction_weights"),
        ({"direction_weights": CROSS[1:]}, "expected 9 numbers of 0 or more"),
    ):
        with pytest.raises(InputError, match=sentence):
            layer(**{"direction_weights": CROSS, **arguments}).init(jax.random.key(0), X)


def test_initializers_have_their_spread():
    key = jax.random.key(0)
    he = he_init(key, (3, 3, 50, 400))
    assert np.std(he) == pytest.approx((2 / 450) ** 0.5, rel=0.02)
    torch_kernel = np.asarray(pytorch_init(key, (3, 3, 50, 400)))
    assert np.abs(torch_kernel).max() == pytest.approx(450**-0.5, rel=1e-3)
    assert torch_kernel.std() == pytest.approx((1 / 3 / 450) ** 0.5, rel=0.02)
    torch_bias = np.asarray(pytorch_bias_init(64)(key, (4000,)))
    assert np.abs(torch_bias).max() == pytest.approx(1 / 8, rel=1e-2)
    assert torch_bias.min() < -0.12


@pytest.mark.parametrize(
    ("attributes", "sentence"),
    [
        ({"kernel_size": 2}, "kernel_size is 2"),
        ({"dilation": 0}, "dilation is 0"),
        ({"stride": 0}, "stride is 0"),
        ({"stride": 2.0}, "stride is 2.0"),
        ({"features": 0}, "features is 0"),
        ({"features": 20.0}, "features is 20.0"),
        ({"expansion": 0}, "expansion 0 of 18 channels leaves no channel"),
        ({"expansion": "3"}, "expansion is '3', expected a number"),
        ({"expansion_reference": "middle"}, "expected 'in' or 'out'"),
        ({"shortcut": "pool_conact"}, "Did you mean 'pool_concat'"),
        ({"shortcut": "pool_concat", "features": 18, "stride": 2}, "features must be more"),
        ({"shortcut": "pool_pad", "features": 9, "stride": 2}, "cannot reduce 18 channels to 9"),
        ({"offsets": np.zeros((5, 2), int)}, r"expected integers of shape \(18, 2\)"),
        ({"offsets": [1, 2]}, "expected integers of shape"),
    ],
)
def test_bad_attributes(attributes, sentence):
    layer = CSC(**{"features": 20, **attributes})
    with pytest.raises(InputError, match=sentence):
        layer.init(jax.random.key(0), X)
