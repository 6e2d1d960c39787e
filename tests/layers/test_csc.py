import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.layers import CSC, SC2
from shift_jax.ops import allocate_offsets, shift, shift_conv, shift_offsets
from tests.layers.inputs import CROSS, X, parameters, perturbed


def batch_norm(x, params, stats):
    x, params, stats = jax.tree.map(np.asarray, (x, params, stats))
    scale = params["scale"] / np.sqrt(stats["var"] + 1e-5)
    return (x - stats["mean"]) * scale + params["bias"]


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
