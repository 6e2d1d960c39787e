"""Networks of the zoo with few blocks and thin hidden layers, quick to compile."""

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

from shift_jax import create_model
from shift_jax.models import model_record
from shift_jax.models.active_shift import ActiveShiftResNet
from shift_jax.models.cifar import CifarNet
from shift_jax.models.faces import FaceNet
from shift_jax.models.resnet50 import ResNet50
from shift_jax.models.shiftnet import ShiftNet
from shift_jax.models.vgg import VGG


def small_model(name, **arguments):
    """The registered network with all its kinds of layers, each once or twice."""
    record = model_record(name)
    if record.num_classes is not None:
        arguments.setdefault("num_classes", 5)
    if name in ("vgg16", "vgg19", "alexnet"):
        arguments.setdefault("hidden_features", 8)
    if name == "facenet":
        arguments.setdefault("repeats", (1, 1, 1))
    return _shallow(create_model(name, **arguments))


def _shallow(model):
    if isinstance(model, CifarNet):
        return model.clone(blocks_per_group=1)
    if isinstance(model, ActiveShiftResNet):
        return model.clone(groups=(1,) * len(model.groups))
    if isinstance(model, ResNet50):
        return model.clone(blocks=(1, 2, 1, 1))
    if isinstance(model, ShiftNet):
        return model.clone(groups=tuple(group._replace(repeats=1) for group in model.groups))
    if isinstance(model, FaceNet):
        return model.clone(trunk=_shallow(model.trunk))
    if isinstance(model, VGG):
        return model.clone(convolutions=(1, 1, 2, 2, 2))
    return model


def quick_jit(function):
    """`jax.jit` that saves on compilation rather than on execution."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def small_shape(name):
    """The smallest image that the network takes and that has no even structure."""
    sides = {"alexnet": (65, 71), "facenet": (75, 80), "squeezenet": (35, 33)}
    return (*sides.get(name, (33, 37)), 3)


def random_variables(model, image_shape, seed=0):
    """Variables of He's size without compiling the initialization."""
    shapes = _shapes(model, image_shape)
    rng = np.random.default_rng(seed)

    def value(path, leaf):
        kind = path[-1].key
        if kind == "kernel":
            deviation = (2 / np.prod(leaf.shape[:-1])) ** 0.5
            return rng.normal(0, deviation, leaf.shape).astype(leaf.dtype)
        if kind in ("scale", "var"):
            return rng.uniform(0.5, 1.5, leaf.shape).astype(leaf.dtype)
        # Positive, so that no ReLU is dead.
        return rng.normal(0.3, 0.1, leaf.shape).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(value, shapes)


def random_images(shape, batch=2, seed=0):
    """Normal pixels [batch, *shape]."""
    return np.random.default_rng(seed).normal(size=(batch, *shape)).astype(np.float32)


@lru_cache(maxsize=16)
def _shapes(model, image_shape):
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
