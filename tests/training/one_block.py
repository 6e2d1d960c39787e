"""A shift network of one block, which compiles in a second or two, and digits to train it on."""

import contextlib

import flax.linen as nn
import jax
import numpy as np
import pytest

from shift_jax.layers import CSC
from shift_jax.models.network import Network
from shift_jax.models.registry import ModelRecord, list_models, register
from shift_jax.training.on_device import training
from shift_jax.training.on_device.arrays import Arrays, load_arrays
from shift_jax.training.on_device.steps import DeviceSteps


class OneBlock(Network):
    """One CSC module with a projection, all of whose channels but the middle one move."""

    expansion: float = 1.0

    @nn.compact
    def __call__(self, x, train=False):
        x = CSC(features=18, expansion=self.expansion, expansion_reference="out", stride=2)(
            x, train
        )
        return self.classify(x.mean((-3, -2)))


def one_block(num_classes, expansion=1.0, initialization="he", dtype=None):
    return OneBlock(
        num_classes=num_classes, expansion=expansion, initialization=initialization, dtype=dtype
    )


if "tiny_block" not in list_models():
    register(ModelRecord("tiny_block", one_block, image_shape=(8, 8, 1), num_classes=10))


def few_digits(train: int = 300, test: int = 70) -> Arrays:
    """The first digits of each split."""
    arrays = load_arrays("digits")
    return Arrays(
        np.ascontiguousarray(arrays.train_images[:train]),
        arrays.train_labels[:train],
        arrays.test_images[:test],
        arrays.test_labels[:test],
        10,
    )


@contextlib.contextmanager
def little_compilation():
    """Training on the device compiles quickly, and the same thing once only.

    Compiling takes longer than these networks' few steps.
    """
    made = {}

    def shared(config, arrays, device, **options):
        key = (str(config), arrays.train_labels.tobytes(), *options.items())
        if key not in made:
            made[key] = DeviceSteps(config, arrays, device, **options)
        return made[key]

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "DeviceSteps", shared)
        yield
    jax.config.update("jax_disable_most_optimizations", before)
