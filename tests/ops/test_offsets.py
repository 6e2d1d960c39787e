import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.ops import allocate_offsets, shift_offsets
from tests.ops.reference import loop_offsets


@pytest.mark.parametrize("order", ["grouped", "interleaved"])
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("kernel_size", [1, 3, 5, 7])
@pytest.mark.parametrize("channels", [1, 8, 9, 16, 49, 144])
def test_offsets_equal_the_formula(channels, kernel_size, dilation, order):
    offsets = shift_offsets(channels, kernel_size, dilation, order)
    assert offsets.shape == (channels, 2) and np.issubdtype(offsets.dtype, np.integer)
    assert offsets.tolist() == [
        list(o) for o in loop_offsets(channels, kernel_size, dilation, order)
    ]


@pytest.mark.parametrize(
    ("channels", "kernel_size", "per_direction", "left_over"),
    [
        (16, 3, 1, 7),
        (32, 3, 3, 5),
        (64, 3, 7, 1),
        (128, 3, 14, 2),
        (144, 3, 16, 0),
        (64, 5, 2, 14),
        (128, 5, 5, 3),
        (256, 5, 10, 6),
        (384, 5, 15, 9),
    ],
)
@pytest.mark.parametrize("order", ["grouped", "interleaved"])
def test_channels_of_each_direction(channels, kernel_size, per_direction, left_over, order):
    offsets = shift_offsets(channels, kernel_size, order=order)
    directions, counts = np.unique(offsets, axis=0, return_counts=True)
    assert len(directions) == kernel_size**2
    center = (directions == 0).all(axis=1)
    assert set(counts[~center]) == {per_direction}
    assert counts[center] == per_direction + left_over
    assert not offsets[channels - left_over :].any()


def test_first_grouped_channel_looks_up_and_left():
    assert shift_offsets(9)[0].tolist() == [-1, -1]
    assert shift_offsets(9)[1].tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kernel_size": 4}, "kernel_size is 4, .* odd size such as 3 or 5"),
        ({"kernel_size": 0}, "kernel_size is 0, expected a positive integer"),
        ({"kernel_size": 3.5}, "kernel_size is 3.5, expected a positive integer"),
        ({"kernel_size": -3}, "kernel_size is -3"),
        ({"dilation": 0}, "dilation is 0, expected a positive integer"),
        ({"channels": 0}, "channels is 0"),
        ({"order": "group"}, "order is 'group', .*Did you mean 'grouped'"),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        shift_offsets(**{"channels": 9, **arguments})


# --- allocations other than the uniform one ----------------------------------------------------


def counts_by_direction(offsets, kernel_size, dilation=1):
    steps = offsets // dilation + kernel_size // 2
    numbers = steps[:, 0] * kernel_size + steps[:, 1]
    return np.bincount(numbers, minlength=kernel_size**2), numbers


@pytest.mark.parametrize(
    ("channels", "weights", "counts"),
    [
        (16, (0, 1, 0, 1, 1, 1, 0, 1, 0), (0, 4, 0, 3, 3, 3, 0, 3, 0)),
        (12, (0, 1, 0, 1, 2, 1, 0, 1, 0), (0, 2, 0, 2, 4, 2, 0, 2, 0)),
        # Quotas 1.6, 3.2 and 3.2: the largest remainder gets the channel left over.
        (8, (1, 2, 2, 0, 0, 0, 0, 0, 0), (2, 3, 3, 0, 0, 0, 0, 0, 0)),
        # Equal remainders, of numbers that binary fractions only approximate.
        (10, (0.1,) * 9, (2, 1, 1, 1, 1, 1, 1, 1, 1)),
        (2, (0, 0.3, 0, 0, 0, 0.3, 0, 0.3, 0), (0, 1, 0, 0, 0, 1, 0, 0, 0)),
        (7, np.array([0, 0, 0, 0, 0, 0, 0, 0, 1e-30]), (0, 0, 0, 0, 0, 0, 0, 0, 7)),
    ],
)
def test_allocation_by_largest_remainder(channels, weights, counts):
    offsets = allocate_offsets(channels, 3, weights)
    found, directions = counts_by_direction(offsets, 3)
    assert offsets.shape == (channels, 2) and offsets.dtype == np.int32
    assert tuple(found) == counts
    assert (np.diff(directions) >= 0).all(), "groups are contiguous, directions in row-major order"


@pytest.mark.parametrize(("channels", "kernel_size"), [(1, 3), (100, 3), (144, 3), (64, 5), (7, 1)])
def test_allocation_is_within_one_channel_of_the_proportion(channels, kernel_size):
    weights = np.random.default_rng(0).uniform(0, 1, kernel_size**2)
    offsets = allocate_offsets(channels, kernel_size, weights, dilation=2)
    found, _ = counts_by_direction(offsets, kernel_size, dilation=2)
    assert found.sum() == channels
    assert (np.abs(found - channels * weights / weights.sum()) < 1).all()


def test_equal_weights_are_the_uniform_allocation_where_no_channel_is_left_over():
    equal = allocate_offsets(144, 3, [1] * 9, dilation=2)
    np.testing.assert_array_equal(equal, shift_offsets(144, dilation=2))


@pytest.mark.parametrize(
    "weights",
    [
        (1,) * 8,
        (0,) * 9,
        (-1, *(1,) * 8),
        (float("nan"), *(1,) * 8),
        (float("inf"), *(1,) * 8),
        np.ones((3, 3)),
        "cross",
        ["1"] * 9,
        None,
    ],
)
def test_weights_that_are_no_allocation(weights):
    with pytest.raises(InputError, match="expected 9 numbers of 0 or more, not all 0"):
        allocate_offsets(9, 3, weights)


def test_sizes_that_are_no_allocation():
    with pytest.raises(InputError, match="kernel_size is 2, "):
        allocate_offsets(9, 2, [1] * 4)
    with pytest.raises(InputError, match="channels is 0"):
        allocate_offsets(0, 3, [1] * 9)
    with pytest.raises(InputError, match="dilation is 0"):
        allocate_offsets(9, 3, [1] * 9, dilation=0)
