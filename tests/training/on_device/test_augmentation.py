import jax
import numpy as np

from shift_jax.training.on_device.augmentation import Crops, draw_crops, take_crops

IMAGES = np.random.default_rng(0).integers(1, 256, (6, 5, 4, 3), np.uint8)


def reference(image, pad, top, left, mirrored):
    padded = np.pad(image, ((pad, pad), (pad, pad), (0, 0)))
    crop = padded[top : top + image.shape[0], left : left + image.shape[1]]
    return crop[:, ::-1] if mirrored else crop


def test_every_crop_is_that_of_the_padded_image(strict_jax):
    pad = 2
    grid = np.meshgrid(np.arange(2 * pad + 1), np.arange(2 * pad + 1), [False, True])
    top, left, mirrored = (each.ravel() for each in grid)
    chosen = np.arange(len(top)) * 5 % len(IMAGES)
    crops = Crops(*map(jax.numpy.asarray, (top, left, mirrored)))
    found = jax.jit(take_crops, static_argnames="pad")(IMAGES, chosen, crops, pad=pad)
    assert found.dtype == np.uint8
    expected = [
        reference(IMAGES[index], pad, *crop)
        for index, *crop in zip(chosen, top, left, mirrored, strict=True)
    ]
    np.testing.assert_array_equal(found, expected)


def test_draws_are_uniform_and_a_function_of_the_key():
    draw = jax.jit(draw_crops, static_argnames=("count", "pad", "flip"))
    crops = jax.tree.map(np.asarray, draw(jax.random.key(0), 9000, pad=1, flip=True))
    counts = np.bincount(crops.top * 3 + crops.left, minlength=9)
    assert counts.min() > 850 and counts.max() < 1150
    assert 0.47 < crops.mirrored.mean() < 0.53
    # Independent of each other: each place has as many mirrored images as not.
    mirrored = np.bincount((crops.top * 3 + crops.left)[crops.mirrored], minlength=9)
    assert (abs(mirrored / counts - 0.5) < 0.08).all()
    again = draw(jax.random.key(0), 9000, pad=1, flip=True)
    other = draw(jax.random.key(1), 9000, pad=1, flip=True)
    np.testing.assert_array_equal(again.top, crops.top)
    assert (np.asarray(other.top) != crops.top).any()


def test_no_pad_and_no_flip_leave_images_as_they_are():
    @jax.jit
    def crop(images):
        crops = draw_crops(jax.random.key(0), len(images), pad=0, flip=False)
        return take_crops(images, np.arange(len(images)), crops, pad=0)

    np.testing.assert_array_equal(crop(IMAGES), IMAGES)
