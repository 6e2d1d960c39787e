import flax.linen as nn
import jax
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.layers import CSC, ShiftConv
from shift_jax.ops import shift
from shift_jax.paper.figures.correlations import (
    GroupCorrelations,
    redundant_pairs,
    shifted_activations,
)

RNG = np.random.default_rng(0)


def test_batch_by_batch_is_numpys_corrcoef():
    pixels = RNG.normal(size=(1200, 7)) @ RNG.normal(size=(7, 7)) + 1e4
    groups = [np.array([0, 5, 3]), np.array([1]), np.array([], int), np.array([2, 4, 6])]
    correlations = GroupCorrelations(groups)
    for part in np.split(pixels, [0, 1, 3, 800]):
        correlations.add(part.reshape(-1, 1, 7))
    assert correlations.count == 1200
    expected = np.corrcoef(pixels.T)
    for channels, matrix in zip(groups, correlations.matrices(), strict=True):
        assert matrix.dtype == np.float64
        np.testing.assert_allclose(matrix, expected[np.ix_(channels, channels)], atol=1e-10)


def test_constant_channels_have_no_correlation():
    pixels = RNG.normal(size=(300, 4))
    pixels[:, 1] = 0
    pixels[:, 3] = 0.1
    assert (pixels[:43].mean(axis=0)[3] - 0.1) != 0, "a mean that is rounded is part of the test"
    correlations = GroupCorrelations([np.arange(4)])
    for part in np.array_split(pixels, 7):
        correlations.add(part)
    (matrix,) = correlations.matrices()
    constant = np.isin(np.arange(4), (1, 3))
    assert np.isnan(matrix[constant]).all() and np.isnan(matrix[:, constant]).all()
    assert np.isfinite(matrix[np.ix_(~constant, ~constant)]).all()
    assert redundant_pairs([np.arange(4)], [matrix], 0.9) == []


def test_correlations_of_almost_equal_channels_stay_within_one():
    column = RNG.normal(size=500)
    correlations = GroupCorrelations([np.arange(2)])
    correlations.add(np.stack([column, -3 * column], axis=1))
    (matrix,) = correlations.matrices()
    assert np.abs(matrix).max() <= 1
    np.testing.assert_allclose(matrix, [[1, -1], [-1, 1]], atol=1e-12)


def test_pairs_above_the_threshold_are_listed():
    first = np.array([[1, 0.5, -0.95], [0.5, 1, 0.9], [-0.95, 0.9, 1]])
    second = np.array([[1, 0.99], [0.99, 1]])
    groups = [np.array([3, 4, 9]), np.array([], int), np.array([7, 8])]
    matrices = [first, np.zeros((0, 0)), second]
    assert redundant_pairs(groups, matrices, 0.9) == [(2, 7, 8, 0.99), (0, 3, 9, -0.95)]
    assert len(redundant_pairs(groups, matrices, 0.0)) == 4
    for threshold in (-0.1, 1, float("nan")):
        with pytest.raises(InputError, match="expected a correlation of 0 or more and below 1"):
            redundant_pairs(groups, matrices, threshold)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        shared = ShiftConv(6, name="shared")
        return CSC(6, expansion=2, name="csc")(shared(shared(x=x)), train)


def test_activations_are_those_before_the_shift():
    images = RNG.normal(size=(2, 5, 4, 6)).astype(np.float32)
    shapes = jax.eval_shape(Net().init, jax.random.key(0), images)
    variables = jax.tree.map(
        lambda leaf: RNG.uniform(0.2, 1, leaf.shape).astype(np.float32) - 0.3 * (leaf.ndim > 1),
        shapes,
    )
    params, stats = variables["params"], variables["batch_stats"]
    kernel = params["shared"]["kernel"]
    once = np.einsum("bhwc,cn->bhwn", shift(images), kernel)
    shared = shifted_activations(Net(), "shared")(variables, images)
    # Of both calls of one layer.
    np.testing.assert_allclose(shared, np.concatenate([images, once]), rtol=1e-4, atol=1e-5)

    x = np.einsum("bhwc,cn->bhwn", shift(once), kernel) @ params["csc"]["conv1"]["kernel"]
    norm, affine = stats["csc"]["norm1"], params["csc"]["norm1"]
    x = (x - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * affine["scale"] + affine["bias"]
    found = shifted_activations(Net(), "csc/conv2")(variables, images)
    np.testing.assert_allclose(found, np.maximum(x, 0), rtol=1e-3, atol=1e-4)
    assert (x < 0).any() and (x > 0).any()


def test_activations_that_are_no_numbers():
    correlations = GroupCorrelations([np.arange(2)])
    with pytest.raises(InputError, match="need two pixels or more, but got 0"):
        correlations.matrices()
    with pytest.raises(InputError, match="activations are not finite"):
        correlations.add(np.array([[1.0, np.nan], [0, 0]]))
