"""Every network exports with `jax.export` for any number and size of images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from shift_jax import list_models
from tests.models.small import (
    quick_jit,
    random_images,
    random_variables,
    small_model,
    small_shape,
)

NAMES = [name for name in list_models() if not name.startswith("tiny")]
# Networks with equal small ones differ by depth only.
SMALL = {small_model(name): name for name in reversed(NAMES)}.values()


# The others have no other layers, or expressions of sizes that take JAX seconds to compare.
EVERYDAY = ("alexnet", "vgg16", "shiftnet_b")


def exported(model, variables, smallest):
    """The network as one program for all images with sides of at least `smallest` pixels."""
    shape = export.symbolic_shape(
        "b, h, w, 3", constraints=[f"{side} >= {smallest}" for side in "hw"]
    )
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    return export.export(jax.jit(model.apply), platforms=["cpu"])(variables, images)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(
            n, marks=() if n in EVERYDAY or "20" in n or "style" in n else pytest.mark.slow
        )
        for n in SMALL
    ],
)
def test_every_network_exports_for_images_of_any_size(name):
    model = small_model(name)
    images = jax.ShapeDtypeStruct((1, *small_shape(name)), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    (outputs,) = exported(model, variables, 75).out_avals
    batch, *others = outputs.shape
    assert str(batch) == "b"
    if "style" in name:
        assert all(map(export.is_symbolic_dim, others[:2])) and others[2] == 3
    else:
        assert others == [model.num_classes]


@pytest.mark.parametrize(
    "name",
    [
        "shiftresnet20",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("shiftnet_b", "shiftnet_c", "shift_style_transformer", "vgg16", "facenet")
        ),
    ],
)
def test_one_export_gives_the_outputs_at_two_sizes(name):
    model, smallest = small_model(name), min(small_shape(name)[:2])
    variables = random_variables(model, small_shape(name))
    anywhere = exported(model, variables, smallest)
    for batch, more in ((2, (0, 0)), (3, (6, 13))):
        shape = (smallest + more[0], smallest + more[1], 3)
        images = random_images(shape, batch)
        expected = quick_jit(model.apply)(variables, images)
        actual = quick_jit(anywhere.call)(variables, images)
        assert actual.shape == expected.shape
        size = np.abs(expected).max()
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-5 * size)
