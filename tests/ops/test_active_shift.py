"""Learned shifts: the authors' numbers, finite differences, integers, devices and sentences."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.test_util import check_grads

from shift_jax import active_shift, shift, sparse_shift
from shift_jax.errors import InputError
from shift_jax.ops.taps import _gathers, _moves
from tests.learned_shifts import FOUND, hashed_images, planes_of, unit
from tests.models.small import quick_jit

SHAPE = (1, 3, 4, 4)
ACTIVE = np.array([[-0.4, 0.3], [0.2, -0.7], [-1.5, 1.25], [0.9, -1.6]], np.float32)
SPARSE = np.array([[0.3, -0.4], [-0.5, 0.5], [1.25, -1.5], [-1.6, 0.9]], np.float32)


def images(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def close(got, expected, **tolerance):
    np.testing.assert_allclose(got, expected, **{"rtol": 1e-5, "atol": 2e-6, **tolerance})


def pulled_back(function, seed, *primals):
    """The outputs, and the derivatives of the primals for one cotangent."""

    def both(seed, *primals):
        y, pullback = jax.vjp(function, *primals)
        return y, *pullback(seed.astype(y.dtype))

    return quick_jit(both)(seed, *primals)


@pytest.mark.parametrize(("stride", "shape"), [(1, SHAPE), (2, (1, 2, 2, 4))])
def test_active_shift_is_that_of_the_authors(stride, shape):
    found = FOUND["ops"][f"active_shift_stride{stride}"]
    seed = planes_of(unit((np.prod(shape),), 77), shape)
    y, x_gradient, gradient = pulled_back(
        lambda x, v: active_shift(x, v, stride), seed, hashed_images(SHAPE), ACTIVE
    )
    close(y, planes_of(found["y"], shape))
    close(x_gradient, planes_of(found["dL_dx"], SHAPE))
    close(gradient, np.stack([found["dL_dbeta"], found["dL_dalpha"]], -1))


def test_at_integers_the_derivative_is_the_right_hand_one():
    found = FOUND["ops"]["active_shift_lattice"]
    x = hashed_images(SHAPE)[..., :1]
    offsets = np.array([[0.0, 1.0]], np.float32)
    y, gradient = pulled_back(lambda v: active_shift(x, v), np.ones(x.shape), offsets)
    close(y, planes_of(found["y"], x.shape))
    close(gradient, [found["dL_dbeta"] + found["dL_dalpha"]])


def test_sparse_shift_is_that_of_the_authors_but_for_the_floor():
    found = FOUND["ops"]["ssl"]
    x = hashed_images(SHAPE)
    seed = planes_of(unit((x.size,), 77).astype(np.float32), SHAPE)
    y, x_gradient, gradient = pulled_back(sparse_shift, seed, x, SPARSE)
    close(y, planes_of(found["y"], SHAPE))
    close(gradient, np.stack([found["grad_a_floor"], found["grad_b_floor"]], -1))
    rounded = np.array([[0, 0], [-1, 1], [1, -2], [-2, 1]])
    close(x_gradient, shift(seed, offsets=-rounded))


@pytest.mark.parametrize(("stride", "order"), [(2, 1), pytest.param(1, 2, marks=pytest.mark.slow)])
def test_derivatives_of_active_shift_are_those_of_finite_differences(stride, order):
    with jax.enable_x64(True):
        x, offsets = images((1, 5, 4, 3)).astype(float), unit((3, 2), 1) * 3
        close_to = {
            "order": order,
            "modes": ["fwd", "rev"],
            "atol": 1e-6,
            "rtol": 1e-6,
            "eps": 1e-6,
        }
        moved = jax.jit(lambda x, v: active_shift(x, v, stride))
        check_grads(moved, (x, offsets), **close_to)


def test_both_modes_of_sparse_shift_agree():
    x, offsets = images((1, 4, 3, 2)), jnp.asarray(unit((2, 2), 1) * 3, jnp.float32)
    forward, backward = (
        quick_jit(jacobian(sparse_shift, argnums=(0, 1)))(x, offsets)
        for jacobian in (jax.jacfwd, jax.jacrev)
    )
    jax.tree.map(close, forward, backward)
    learns = quick_jit(jax.jacfwd(active_shift, argnums=1))(x, offsets)
    close(forward[1], learns)


@pytest.mark.parametrize("function", [active_shift, sparse_shift])
@pytest.mark.parametrize("stride", [1, 2])
def test_integers_are_the_shift(function, stride):
    x, offsets = images((2, 6, 7, 5)), np.array([[0, 0], [1, -1], [-2, 3], [9, 0], [0, -7]])
    expected = shift(x, offsets=offsets)[:, ::stride, ::stride]
    for table in (offsets, offsets.astype(np.float32), jnp.asarray(offsets, jnp.float32)):
        np.testing.assert_array_equal(function(x, table, stride), expected)
        known = jax.make_jaxpr(lambda x, table=table: function(x, table, stride))(x)
        assert "shift[" in str(known) and "taps" not in str(known)
    traced = quick_jit(lambda x, v: function(x, v, stride))
    np.testing.assert_array_equal(traced(x, offsets.astype(np.float32)), expected)


def test_halves_round_away_from_zero():
    x = images((1, 9, 9, 4))
    offsets = jnp.array([[0.5, -0.5], [1.5, -1.5], [2.5, -2.5], [0.49, -0.49]])
    expected = shift(x, offsets=[(1, -1), (2, -2), (3, -3), (0, 0)])
    np.testing.assert_array_equal(quick_jit(sparse_shift)(x, offsets), expected)
    np.testing.assert_array_equal(sparse_shift(x, offsets), expected)


def test_offsets_far_outside_give_zeros():
    x = images((1, 3, 4, 4))
    offsets = jnp.array([[1e9, 0.3], [-1e9, 0], [0.2, 3e38], [3.5, 0]])
    for function in (active_shift, sparse_shift):
        assert not any(np.asarray(out).any() for out in pulled_back(function, x, x, offsets))


def test_bfloat16_is_near_float32():
    x, offsets = images((2, 6, 6, 8)), jnp.asarray(unit((8, 2), 3) * 2, jnp.float32)
    rounded = jnp.asarray(x, jnp.bfloat16)
    y, dx, dv = pulled_back(active_shift, np.ones(x.shape), rounded, offsets)
    exact, exact_dx, exact_dv = pulled_back(
        active_shift, np.ones(x.shape), rounded.astype(jnp.float32), offsets
    )
    assert (y.dtype, dx.dtype, dv.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    close(y.astype(jnp.float32), exact, rtol=1e-2, atol=1e-2)
    close(dx.astype(jnp.float32), exact_dx, rtol=1e-2, atol=1e-2)
    close(dv, exact_dv, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", [active_shift, sparse_shift])
def test_vmap_over_images_and_over_offsets(function):
    x, offsets = images((3, 2, 5, 4, 6)), jnp.asarray(unit((3, 6, 2), 5) * 2, jnp.float32)

    def loss(x, v):
        return (function(x, v) ** 2).sum()

    both = jax.value_and_grad(loss, argnums=(0, 1))
    one = quick_jit(both)(x[1], offsets[1])
    many = quick_jit(jax.vmap(both))(x, offsets)
    jax.tree.map(lambda a, b: close(a[1], b, rtol=1e-4, atol=1e-5), many, one)
    shared = quick_jit(jax.vmap(function, in_axes=(1, None), out_axes=1))(x, offsets[1])
    close(shared, quick_jit(function)(x, offsets[1]))


@pytest.mark.parametrize("function", [active_shift, sparse_shift])
def test_eight_devices_equal_one_and_move_no_images(function):
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    x, offsets = images((16, 5, 4, 6)), jnp.asarray(unit((6, 2), 5) * 2, jnp.float32)

    def loss(x, v):
        return (function(x, v) ** 2).sum()

    step = quick_jit(jax.value_and_grad(loss, argnums=(0, 1)))
    rows = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    whole = jax.device_put(offsets, NamedSharding(mesh, PartitionSpec()))
    many = step.lower(rows, whole).compile()
    jax.tree.map(
        lambda a, b: close(a, b, rtol=1e-4, atol=1e-5), many(rows, whole), step(x, offsets)
    )
    assert not any(f"{word}(" in many.as_text() for word in ("all-gather", "all-to-all"))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((np.zeros((4, 4)), np.zeros((4, 2))), r"x is .* of shape \(4, 4\)"),
        ((np.zeros((1, 4, 4, 4), int), np.zeros((4, 2))), "expected a floating-point type"),
        ((np.zeros((1, 4, 4, 4)), np.zeros((3, 2))), r"expected \(4, 2\): one \(dy, dx\)"),
        ((np.zeros((1, 4, 4, 4)), np.zeros((4, 2)), 0), "stride is 0"),
    ],
)
@pytest.mark.parametrize("function", [active_shift, sparse_shift])
def test_bad_arguments(function, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        function(*arguments)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["between", "difference", "at"])
def test_the_formulations_of_all_platforms_are_equal(kind, stride):
    x, offsets = images((2, 6, 7, 5)), jnp.asarray(unit((5, 2), 5) * 4, jnp.float32)
    operands = (x, jnp.floor(offsets).astype(jnp.int32).at[0, 0].set(-7), offsets % 1)
    how = {"stride": stride, "kinds": ("between", kind), "dtype": x.dtype}
    ways = (_moves, partial(_gathers, on_cpu=False), partial(_gathers, on_cpu=True))
    moved, gathered, expected = (
        quick_jit(lambda *xs, way=way: way(*xs, **how))(*operands) for way in ways
    )
    close(moved, expected)
    close(gathered, expected)
