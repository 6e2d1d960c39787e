import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from shift_jax.errors import InputError
from shift_jax.ops import shift_conv, shift_offsets
from tests.ops.reference import loop_shift


def random(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def reference(
    x, w, bias=None, prologue_scale=None, prologue_bias=None, prologue_relu=False, residual=None,
    relu=False, stride=1, offsets=None, relu_before_residual=False,
):  # fmt: skip
    """Float64 numpy, one step of the definition after the other."""
    x, w = np.asarray(x, np.float64), np.asarray(w, np.float64)
    x = x if prologue_scale is None else x * np.asarray(prologue_scale, np.float64)
    x = x if prologue_bias is None else x + np.asarray(prologue_bias, np.float64)
    x = np.maximum(x, 0) if prologue_relu else x
    y = loop_shift(x, offsets)[..., ::stride, ::stride, :] @ w
    y = y if bias is None else y + np.asarray(bias, np.float64)
    y = np.maximum(y, 0) if relu_before_residual else y
    y = y if residual is None else y + np.asarray(residual, np.float64)
    return np.maximum(y, 0) if relu else y


EVERYTHING = {
    "bias": random(5, seed=2),
    "prologue_scale": random(20, seed=3),
    "prologue_bias": random(20, seed=4),
    "prologue_relu": True,
    "relu": True,
}


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("shape", [(2, 7, 6, 20), (5, 1, 20), (2, 1, 2, 3, 20)])
@pytest.mark.parametrize("extra", [{}, *({k: v} for k, v in EVERYTHING.items()), EVERYTHING])
def test_equals_the_definition(shape, stride, extra):
    x, w = random(*shape), random(20, 5, seed=1)
    y = shift_conv(x, w, kernel_size=3, dilation=2, stride=stride, **extra)
    expected = reference(x, w, stride=stride, offsets=shift_offsets(20, 3, 2), **extra)
    assert y.shape == (*shape[:-3], -(-shape[-3] // stride), -(-shape[-2] // stride), 5)
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("relu", ["relu", "relu_before_residual"])
def test_the_relu_is_after_the_residual_or_before(relu):
    x, w, residual = random(2, 5, 5, 20), random(20, 5, seed=1), random(2, 3, 3, 5, seed=5)
    options = {"stride": 2, "residual": residual, relu: True}
    expected = reference(x, w, **options, offsets=shift_offsets(20))
    np.testing.assert_allclose(shift_conv(x, w, **options), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("implementation", [None, "xla"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_statistics_are_sums_of_the_output(implementation, dtype):
    x, w = random(2, 3, 7, 6, 20, dtype=dtype), random(20, 5, seed=1, dtype=dtype)
    options = {"bias": random(5, seed=2), "relu": True, "stride": 2}
    y, sums = shift_conv(x, w, **options, statistics=True, implementation=implementation)
    wide = [np.asarray(a.astype(jnp.float32)) for a in (x, w)]
    expected = reference(*wide, **options, offsets=shift_offsets(20))
    np.testing.assert_allclose(y.astype(jnp.float32), expected, rtol=2**-7, atol=1e-3)
    for values, power in zip(sums, (1, 2), strict=True):
        assert values.dtype == jnp.float32
        of_output = (np.asarray(y, np.float64) ** power).sum((0, 1, 2, 3))
        np.testing.assert_allclose(values, of_output, rtol=1e-5)


def test_a_batch_of_no_images_gives_none():
    y, sums = shift_conv(jnp.zeros((0, 4, 4, 9)), jnp.ones((9, 5)), statistics=True)
    assert y.shape == (0, 4, 4, 5) and not np.any(sums)


def test_pixels_from_outside_are_zero_after_the_prologue():
    x, w = jnp.zeros((1, 1, 1, 9)), jnp.eye(9)
    y = shift_conv(x, w, prologue_bias=jnp.ones(9))
    # Only the center channel sees the one pixel, whose prologue gives 1.
    assert y.ravel().tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize(("implementation", "modes"), [(None, ["rev"]), ("xla", ["rev", "fwd"])])
@pytest.mark.parametrize(
    "relu", ["relu", pytest.param("relu_before_residual", marks=pytest.mark.slow)]
)
def test_every_argument_gets_its_gradient(implementation, modes, relu):
    arguments = {
        "x": random(2, 4, 3, 20),
        "w": random(20, 5, seed=1),
        "bias": random(5, seed=2),
        "prologue_scale": random(20, seed=3),
        "prologue_bias": random(20, seed=4),
        "residual": random(2, 2, 2, 5, seed=5),
    }
    with jax.enable_x64(True):
        arguments = {key: jnp.asarray(value, jnp.float64) for key, value in arguments.items()}

        def op(arguments):
            options = {"stride": 2, "prologue_relu": True, relu: True, "statistics": True}
            y, sums = shift_conv(**arguments, **options, implementation=implementation)
            return jnp.sum(y**2) + jnp.sum(jnp.sin(sums[0])) + jnp.sum(jnp.cos(sums[1] / 9))

        check_grads(op, (arguments,), order=2, modes=modes, rtol=1e-4)


@pytest.mark.parametrize("with_bias", [False, True])
def test_bfloat16_rounds_once(with_bias):
    x, w = random(2, 6, 6, 90, dtype=jnp.bfloat16), random(90, 7, seed=1, dtype=jnp.bfloat16)
    bias = random(7, seed=2, dtype=jnp.bfloat16) if with_bias else None
    y = shift_conv(x, w, bias)
    assert y.dtype == jnp.bfloat16
    wide = reference(
        np.asarray(x, np.float32), np.asarray(w, np.float32), offsets=shift_offsets(90)
    )
    wide = wide + (0 if bias is None else np.asarray(bias, np.float64))
    # Half a unit in the last of bfloat16's 8 bits, and float32's own rounding.
    np.testing.assert_allclose(np.asarray(y, np.float64), wide, rtol=2**-8, atol=1e-4)


def test_explicit_offsets_and_interleaved_order():
    x, w = random(1, 5, 5, 20), random(20, 5, seed=1)
    by_order = shift_conv(x, w, order="interleaved")
    explicit = shift_conv(x, w, offsets=shift_offsets(20, order="interleaved"))
    np.testing.assert_array_equal(by_order, explicit)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"w": jnp.zeros((8, 5))}, r"w has shape \(8, 5\), expected \(9, features\)"),
        ({"x": jnp.zeros((4, 9))}, "expected .*height, width"),
        ({"bias": jnp.zeros(4)}, r"bias has shape \(4,\), expected \(5,\)"),
        ({"prologue_scale": jnp.zeros(5)}, r"prologue_scale has shape \(5,\), expected \(9,\)"),
        (
            {"prologue_bias": jnp.zeros((1, 9))},
            r"prologue_bias has shape \(1, 9\), expected \(9,\)",
        ),
        ({"residual": jnp.zeros((1, 4, 4, 5)), "stride": 2}, r"expected \(1, 2, 2, 5\)"),
        ({"stride": 0}, "stride is 0, expected a positive integer"),
        ({"kernel_size": 2}, "kernel_size is 2"),
        ({"offsets": np.zeros((5, 2), int)}, r"expected integers of shape \(9, 2\)"),
        ({"relu": True, "relu_before_residual": True}, "are both True"),
        ({"implementation": "xls"}, "implementation is 'xls', .*Did you mean 'xla'"),
    ],
)
def test_bad_arguments(changes, sentence):
    arguments = {"x": jnp.zeros((1, 4, 4, 9)), "w": jnp.zeros((9, 5)), **changes}
    with pytest.raises(InputError, match=sentence):
        shift_conv(arguments.pop("x"), arguments.pop("w"), **arguments)
