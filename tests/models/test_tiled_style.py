import errno
import os

import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax import create_model
from shift_jax.errors import InputError
from shift_jax.models import tiled_style
from shift_jax.models.tiled_style import stylize_by_tiles
from tests.models.small import quick_jit, random_variables


def network(name, **arguments):
    """A style transformer whose pixels span about 0..255."""
    model = create_model(name, **arguments)
    variables = random_variables(model, (16, 16, 3))
    last = variables["params"]["up3"]["conv"]
    last["kernel"] *= 30
    last["bias"] += 128
    return model, variables


def photo(height, width):
    """A gradient with noise, so that tiles differ in mean and variance."""
    noise = np.random.default_rng(0).integers(0, 60, (height, width, 3))
    y, x = np.mgrid[:height, :width]
    return (noise + (120 * y / height + 75 * x / width)[..., None]).astype(np.uint8)


def whole(model, variables, image):
    return np.asarray(quick_jit(model.apply)(variables, image[None].astype(np.float32)))[0]


# Sides that 4 divides and that it does not, tiles that do not divide them, and the smallest image.
@pytest.mark.parametrize(
    ("name", "size", "tile_size"),
    [
        ("shift_style_transformer", (37, 54), 12),
        ("style_transformer", (30, 45), 11),
        pytest.param("shift_style_transformer", (5, 6), 4, marks=pytest.mark.slow),
        pytest.param("style_transformer", (5, 7), 3, marks=pytest.mark.slow),
        pytest.param("style_transformer", (64, 9), 100, marks=pytest.mark.slow),
    ],
)
def test_tiles_are_the_whole(name, size, tile_size):
    model, variables = network(name)
    image = photo(*size)
    expected = whole(model, variables, image)
    result = stylize_by_tiles(model, variables, image, tile_size)
    assert result.dtype == np.float32 and result.shape == expected.shape
    assert expected.std() > 20
    # A gray level is 1; a halo that is too narrow by a pixel is seen at 1 and more.
    np.testing.assert_allclose(result, expected, atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shift_style_transformer", "style_transformer"])
def test_the_variant_of_the_text(name):
    model, variables = network(name, variant="text")
    image = photo(21, 18)
    result = stylize_by_tiles(model, variables, image, 8)
    np.testing.assert_allclose(result, whole(model, variables, image), atol=0.02)


@pytest.mark.slow
def test_bfloat16_is_computed_as_the_network_does():
    model, variables = network("shift_style_transformer", dtype=jnp.bfloat16)
    image = photo(21, 18)
    expected = whole(model, variables, image)
    result = stylize_by_tiles(model, variables, image, 8)
    assert np.linalg.norm(result - expected) < 0.05 * np.linalg.norm(expected - expected.mean())


def test_what_memory_does_not_hold_lies_in_a_file(monkeypatch):
    model, variables = network("shift_style_transformer")
    image = photo(37, 54)
    names, sizes = [], []

    def memmap(file, dtype, mode, shape):
        sizes.append(os.fstat(file.fileno()).st_size)
        return original(file, dtype, mode, shape=shape)

    original = np.memmap
    monkeypatch.setattr(tiled_style.np, "memmap", memmap)
    in_memory = stylize_by_tiles(model, variables, image, 12, progress=names.append)
    # There is nothing in memory that is not used any more: the last two layers at full resolution
    # need the most.
    most = 4 * (20 * 28 * 64 + 40 * 56 * 32)
    stylize_by_tiles(model, variables, image, 12, memory_bytes=most)
    assert not sizes
    assert names == list(model.convolutions())
    # The first layer's output goes to the file, with the larger ones at the end.
    room = 150_000
    by_file = stylize_by_tiles(model, variables, image, 12, memory_bytes=room)
    np.testing.assert_array_equal(by_file, in_memory)
    assert sizes[0] == 4 * 37 * 54 * 32 > room
    assert max(sizes) == 4 * 40 * 56 * 32 and len(sizes) < len(names) / 2


def test_a_full_disk_is_told_before_it_ends_the_process(monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    model, variables = network("shift_style_transformer")
    monkeypatch.setattr(tiled_style.os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space left") as error:
        stylize_by_tiles(model, variables, photo(5, 6), 4, memory_bytes=0)
    assert error.value.filename


@pytest.mark.parametrize(
    ("shape", "arguments", "sentence"),
    [
        ((4, 8, 3), {}, "sides of at least 5 pixels"),
        ((8, 8), {}, "do not fit the network"),
        ((8, 8, 4), {}, "has 4 channels"),
        ((8, 8, 3), {"tile_size": 0}, "tile_size is 0, expected a positive integer"),
    ],
)
def test_bad_arguments(shape, arguments, sentence):
    model = create_model("shift_style_transformer")
    with pytest.raises(InputError, match=sentence):
        stylize_by_tiles(model, {"params": {}}, np.zeros(shape, np.uint8), **arguments)
