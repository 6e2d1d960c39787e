from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shift_jax.errors import InputError
from shift_jax.ops import shift, shift_conv, shift_offsets
from shift_jax.ops.shift import _gather, _rows_then_columns
from tests.ops.reference import loop_adjoint, loop_offsets, loop_shift

# Odd sizes, sizes smaller than the offsets, C < k², C a multiple of k² and not.
SHAPES = [(2, 5, 7, 20), (1, 2, 3, 9), (1, 1, 1, 10), (3, 4, 27), (2, 2, 4, 3, 5), (1, 9, 8, 52)]


def random(shape, dtype=np.float32, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(values.astype(np.float32), dtype)


@pytest.mark.parametrize("order", ["grouped", "interleaved"])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
def test_shift_and_its_vjp_equal_the_loop_bit_for_bit(kernel_size, dilation, order):
    xs = [random(shape) for shape in SHAPES]
    dys = [random(shape, seed=1) for shape in SHAPES]

    @jax.jit  # All shapes at once, which compiles faster than one after the other.
    def shift_all(xs, dys):
        ys, pull_back = jax.vjp(lambda xs: [shift(x, kernel_size, dilation, order) for x in xs], xs)
        return ys, pull_back(dys)[0]

    for x, dy, y, dx in zip(xs, dys, *shift_all(xs, dys), strict=True):
        offsets = loop_offsets(x.shape[-1], kernel_size, dilation, order)
        np.testing.assert_array_equal(y, loop_shift(x, offsets))
        np.testing.assert_array_equal(dx, loop_adjoint(dy, offsets))


FORMULATIONS = {
    "rows then columns": _rows_then_columns,
    "single channels": partial(_gather, block=1, over_batch=True),
    "blocks": partial(_gather, block=4, over_batch=True),
    "single channels of one image": partial(_gather, block=1, over_batch=False),
    "blocks of one image": partial(_gather, block=4, over_batch=False),
}


@pytest.mark.parametrize("formulation", FORMULATIONS.values(), ids=FORMULATIONS)
@pytest.mark.parametrize("order", ["grouped", "interleaved"])
@pytest.mark.parametrize(("kernel_size", "dilation"), [(3, 1), (3, 3), (5, 2), (7, 1)])
def test_the_formulation_of_every_platform_equals_the_loop(
    formulation, kernel_size, dilation, order
):
    for shape in SHAPES:
        x, offsets = random(shape), loop_offsets(shape[-1], kernel_size, dilation, order)
        y = jax.jit(formulation, static_argnums=1)(x, tuple(offsets))
        np.testing.assert_array_equal(y, loop_shift(x, offsets))


@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_blocks_with_one_two_or_more_offsets_equal_the_loop(data):
    pairs = st.tuples(st.integers(-4, 4), st.integers(-4, 4))
    runs = data.draw(st.lists(st.tuples(pairs, st.integers(1, 9)), min_size=1, max_size=4))
    offsets = tuple(pair for pair, length in runs for _ in range(length))
    offsets += ((0, 0),) * (-len(offsets) % 4)
    x = random((2, 3, 4, len(offsets)))
    y = FORMULATIONS["blocks"](x, offsets)
    np.testing.assert_array_equal(y, loop_shift(x, offsets))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.int8, jnp.bool_, jnp.complex64])
@pytest.mark.parametrize("formulation", FORMULATIONS.values(), ids=FORMULATIONS)
def test_every_formulation_moves_any_dtype(formulation, dtype):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (2, 3, 4, 20)), dtype)
    offsets = tuple(map(tuple, shift_offsets(20, 3, 2).tolist()))
    y = formulation(x, offsets)
    assert y.dtype == dtype
    expected = loop_shift(np.asarray(x, np.complex64), offsets)
    np.testing.assert_array_equal(np.asarray(y, np.complex64), expected)


@pytest.mark.parametrize("formulation", FORMULATIONS.values(), ids=FORMULATIONS)
def test_every_formulation_keeps_special_values_and_lets_none_in(formulation):
    x = jnp.full((2, 3, 3, 20), jnp.nan).at[:, 1, 1].set(-0.0).at[:, 0, 2].set(jnp.inf)
    offsets = tuple((10**6 * (c % 2), -c // 9) for c in range(18)) + ((-(10**6), 10**6),) * 2
    y, expected = np.asarray(formulation(x, offsets)), loop_shift(np.asarray(x), offsets)
    np.testing.assert_array_equal(y.view(np.uint32), expected.view(np.uint32))


def test_an_empty_batch_stays_empty():
    assert shift(jnp.zeros((0, 4, 4, 9))).shape == (0, 4, 4, 9)


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_any_offsets_equal_the_loop(data):
    height, width, channels = (data.draw(st.integers(1, 5)) for _ in range(3))
    pairs = st.tuples(st.integers(-6, 6), st.integers(-6, 6))
    offsets = data.draw(st.lists(pairs, min_size=channels, max_size=channels))
    x, dy = random((2, height, width, channels)), random((2, height, width, channels), seed=1)
    y, pull_back = jax.vjp(lambda x: shift(x, offsets=offsets), x)
    np.testing.assert_array_equal(y, loop_shift(x, offsets))
    np.testing.assert_array_equal(pull_back(dy)[0], loop_adjoint(dy, offsets))


@settings(deadline=None, max_examples=10)
@given(
    groups=st.integers(0, 3),
    left_over=st.integers(0, 8),
    kernel_size=st.sampled_from([1, 3]),
    dilation=st.integers(1, 3),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
)
def test_interleaved_is_grouped_under_a_permutation(
    groups, left_over, kernel_size, dilation, height, width
):
    directions = kernel_size**2
    channels = max(1, groups * directions + left_over % directions)
    per_direction = channels // directions
    moved = np.arange(per_direction * directions)
    # Interleaved channel r·k² + d and grouped channel d·g + r have the direction d.
    to_grouped = (moved % directions) * per_direction + moved // directions
    to_grouped = np.concatenate([to_grouped, np.arange(len(moved), channels)]).astype(int)
    x = random((1, height, width, channels))
    grouped = shift(x, kernel_size, dilation, "grouped")
    interleaved = shift(x[..., to_grouped], kernel_size, dilation, "interleaved")
    np.testing.assert_array_equal(interleaved, grouped[..., to_grouped])


@settings(deadline=None, max_examples=10)
@given(dilation=st.integers(1, 4), size=st.integers(1, 6))
def test_the_gradient_is_the_shift_with_offsets_negated(dilation, size):
    x, dy = random((1, size, size, 19)), random((1, size, size, 19), seed=1)
    offsets = shift_offsets(19, 3, dilation)
    gradient = jax.vjp(lambda x: shift(x, offsets=offsets), x)[1](dy)[0]
    np.testing.assert_array_equal(gradient, shift(dy, offsets=-offsets))


@pytest.mark.parametrize(
    "dtype", [jnp.bfloat16, jnp.float16, jnp.int8, jnp.uint32, jnp.bool_, jnp.complex64]
)
def test_any_dtype(dtype):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 2, (2, 3, 4, 11)), dtype)
    y = shift(x, 3, 2)
    assert y.dtype == dtype
    np.testing.assert_array_equal(
        np.asarray(y, np.complex64),
        loop_shift(np.asarray(x, np.complex64), shift_offsets(11, 3, 2)),
    )


def test_nothing_but_zeros_comes_in_and_special_values_survive():
    x = jnp.full((1, 3, 3, 9), jnp.nan).at[0, 1, 1].set(-0.0)
    y = np.asarray(shift(x))
    expected = loop_shift(np.asarray(x), shift_offsets(9))
    np.testing.assert_array_equal(y.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("order", ["grouped", "interleaved"])
def test_transformations_change_nothing(order):
    x = random((4, 2, 5, 6, 22))

    def op(x):
        return shift(x, 3, 2, order)

    expected = op(x)
    np.testing.assert_array_equal(jax.jit(op)(x), expected)
    for axis in (0, 1):
        np.testing.assert_array_equal(jax.vmap(op, axis, axis)(x), expected)
    # A batch axis where the channels were: each example keeps all its channels.
    moved = jnp.moveaxis(x, 0, -1)
    np.testing.assert_array_equal(jax.vmap(op, -1, 0)(moved), expected)

    dy = random(x.shape, seed=1)

    def loss(x):
        return jnp.sum(op(x) * dy)

    gradient = loop_adjoint(dy, loop_offsets(22, 3, 2, order))
    np.testing.assert_array_equal(jax.grad(loss)(x), gradient)
    np.testing.assert_array_equal(jax.grad(jax.checkpoint(loss))(x), gradient)
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(loss)))(x[None])[0], gradient)
    np.testing.assert_array_equal(jax.jvp(op, (x,), (dy,))[1], op(dy))
    np.testing.assert_array_equal(jax.linear_transpose(op, x)(dy)[0], gradient)


def test_second_derivatives_of_both_modes():
    x = random((1, 2, 9))
    matrix = jax.jacrev(shift)(x).reshape(18, 18)
    np.testing.assert_array_equal(matrix, jax.jacfwd(shift)(x).reshape(18, 18))
    # Of |S x|² the second derivative is 2 Sᵀ S.
    hessian = jax.hessian(lambda x: jnp.sum(shift(x) ** 2))(x).reshape(18, 18)
    np.testing.assert_array_equal(hessian, 2 * matrix.T @ matrix)
    assert matrix.sum() < 18, "some pixels leave the image"


def test_bfloat16_gradient():
    x, dy = random((1, 5, 5, 18), jnp.bfloat16), random((1, 5, 5, 18), jnp.bfloat16, seed=1)
    gradient = jax.vjp(shift, x)[1](dy)[0]
    assert gradient.dtype == jnp.bfloat16
    expected = loop_adjoint(np.asarray(dy, np.float32), shift_offsets(18))
    np.testing.assert_array_equal(np.asarray(gradient, np.float32), expected)


@pytest.mark.parametrize(
    ("offsets", "sentence"),
    [
        (np.zeros((8, 2), int), r"shape \(8, 2\), expected integers of shape \(9, 2\)"),
        (np.zeros((9, 3), int), r"shape \(9, 3\)"),
        (np.zeros((9, 2)), "offsets are float64"),
        ([(0, 1), (0,)], "expected integers"),
    ],
)
def test_offsets_that_do_not_fit(offsets, sentence):
    with pytest.raises(InputError, match=sentence):
        shift(jnp.zeros((1, 4, 4, 9)), offsets=offsets)


def test_too_few_axes():
    with pytest.raises(InputError, match=r"shape \(4, 9\), expected \[..., height, width"):
        shift(jnp.zeros((4, 9)))


@pytest.mark.parametrize("stride", [1, 2])
def test_symbolic_sizes(stride):
    """One export for images of any size, even of sizes that offsets lead out of."""
    offsets = [(0, 0), (-1, 2), (3, 0), (0, -9), (7, -4)]
    w = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)), jnp.float32)

    def function(x):
        moved = shift(x, offsets=offsets)
        y = shift_conv(moved, w, offsets=offsets, stride=stride)
        # As a pooling or a convolution makes it.
        return y + nn.avg_pool(x[..., :4], (3, 3), (stride, stride), [(1, 1), (1, 1)])

    images = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, h, w, 5"), jnp.float32)
    platforms = ["cpu", "cuda", "tpu"]
    anywhere = jax.export.export(jax.jit(function), platforms=platforms)(images)
    for shape in ((2, 1, 2, 5), (3, 8, 11, 5)):
        x = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
        np.testing.assert_allclose(anywhere.call(x), function(x), rtol=1e-5, atol=1e-5)
