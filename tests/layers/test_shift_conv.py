from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.layers import CSC, SC2, Shift, ShiftConv
from shift_jax.ops import allocate_offsets, shift, shift_conv, shift_offsets
from tests.layers.inputs import CROSS, X


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


def test_out_scale_multiplies_kernel_and_bias():
    layer = ShiftConv(features=5, use_bias=True, bias_init=jax.random.normal)
    variables = layer.init(jax.random.key(0), X)
    scale, bias = jnp.arange(1.0, 6), jnp.arange(5.0)
    y = layer.apply(variables, X, out_scale=scale, bias=bias)
    expected = np.asarray(layer.apply(variables, X)) * np.asarray(scale) + np.asarray(bias)
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


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
