import itertools

import numpy as np
import pytest

from shift_jax.models.tiles import Moments, Side


def convolved(padded, kernel, stride):
    return np.convolve(padded, kernel, mode="valid")[::stride]


def by_tiles(x, kernel, side):
    """What the tiles of a side make of a signal; what is beyond a tile is NaN."""
    result = np.full(side.output_length, np.nan)
    for span in side.spans():
        tile = np.where(span.inside, x[span.positions], 0)
        beyond = np.full(len(kernel) // 2, np.nan)
        y = convolved(np.concatenate([beyond, tile, beyond]), kernel, side.stride)
        y = y[side.halo : side.halo + side.tile]
        assert len(y) == side.tile
        result[span.start : span.stop] = y[: span.stop - span.start]
    return result


@pytest.mark.parametrize("reflect", [True, False], ids=["reflection", "zeros"])
@pytest.mark.parametrize(
    ("kernel_size", "stride", "upsample"),
    [(9, 1, 1), (7, 2, 1), (3, 2, 1), (3, 1, 1), (5, 1, 2), (7, 1, 2)],
)
def test_tiles_are_the_whole(kernel_size, stride, upsample, reflect):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=kernel_size)
    for length, tile_size in itertools.product((5, 6, 7, 16, 33), (1, 2, 3, 4, 7, 100)):
        x = rng.normal(size=length)
        padded = np.pad(
            np.repeat(x, upsample), kernel_size // 2, "reflect" if reflect else "constant"
        )
        side = Side(length, kernel_size, stride, upsample, reflect, tile_size)
        assert side.tile <= tile_size
        np.testing.assert_allclose(
            by_tiles(x, kernel, side), convolved(padded, kernel, stride), atol=1e-12
        )


def test_tiles_are_of_one_size_and_as_even_as_can_be():
    side = Side(1001, 3, 1, 1, reflect=True, tile_size=384)
    spans = list(side.spans())
    assert [(span.start, span.stop) for span in spans] == [(0, 334), (334, 668), (668, 1001)]
    assert {len(span.positions) for span in spans} == {336}


def test_moments_of_parts_are_those_of_all():
    rng = np.random.default_rng(0)
    # Far from zero: mean squares less squared means would be off by more than the variance.
    x = rng.normal(1e8, 1, size=(1000, 3)) + np.arange(1000)[:, None] / 100
    parts = np.split(x, [1, 8, 500, 503])
    total = sum(
        (Moments(len(p), p.mean(0), np.square(p - p.mean(0)).sum(0)) for p in parts), Moments()
    )
    assert total.count == 1000
    np.testing.assert_allclose(total.mean, x.mean(0), rtol=1e-14)
    np.testing.assert_allclose(total.squares / total.count, x.var(0), rtol=1e-6)
