import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.ops import shift_offsets
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
    centre = (directions == 0).all(axis=1)
    assert set(counts[~centre]) == {per_direction}
    assert counts[centre] == per_direction + left_over
    assert not offsets[channels - left_over :].any()


def test_first_grouped_channel_looks_up_and_left():
    assert shift_offsets(9)[0].tolist() == [-1, -1]
    assert shift_offsets(9)[1].tolist() == [-1, 0]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"kernel_size": 4}, "kernel_size is 4, .* odd one such as 3 or 5"),
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
