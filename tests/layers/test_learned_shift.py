"""Layers and modules that learn their shifts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax import CSC, SC2, ActiveShift, SparseShift, create_model
from shift_jax.errors import InputError
from shift_jax.models import model_record
from tests.models.small import quick_jit, random_images, random_variables

KINDS = ["active", "sparse"]


@pytest.mark.parametrize("layer", [ActiveShift, SparseShift])
def test_offsets_begin_within_a_pixel_or_on_the_grid(layer):
    x = jnp.zeros((1, 4, 4, 90))
    uniform, grid = (
        layer(offsets_init=name).init(jax.random.key(0), x)["params"]["offsets"]
        for name in ("uniform", "grid")
    )
    assert uniform.shape == (90, 2) and uniform.dtype == jnp.float32
    assert -1 <= uniform.min() < -0.9 and 0.9 < uniform.max() < 1
    np.testing.assert_array_equal(grid[::10], [[y, x] for y in (-1, 0, 1) for x in (-1, 0, 1)])
    with pytest.raises(InputError, match="offsets_init is 'normal'"):
        layer(offsets_init="normal").init(jax.random.key(0), x)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("module", [CSC, SC2])
def test_on_the_grid_a_module_that_learns_its_shifts_does_what_a_fixed_one_does(module, kind):
    arguments = {"features": 20, "expansion": 2, "stride": 2, "kernel_size": 5, "dilation": 2}
    x = random_images((9, 7, 12))
    fixed = random_variables(module(**arguments), x.shape[1:])
    learned = module(**arguments, shift=kind)
    params = jax.jit(learned.init)(jax.random.key(0), x)["params"]
    shifts = {name: leaves for name, leaves in params.items() if name.startswith("shift")}
    assert list(shifts) == (["shift1", "shift2"] if module is SC2 else ["shift2"])
    assert {**fixed["params"], **shifts}.keys() == params.keys()
    variables = {**fixed, "params": {**fixed["params"], **shifts}}

    def loss(variables, layer):
        y, _ = layer.apply(variables, x, train=True, mutable=["batch_stats"])
        return (y * jnp.linspace(-1, 1, y.size).reshape(y.shape)).sum(), y

    step = jax.value_and_grad(loss, has_aux=True)
    (_, y), gradient = quick_jit(lambda v: step(v, learned))(variables)
    expected = quick_jit(lambda v: loss(v, module(**arguments)))(fixed)[1]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    assert all(np.any(gradient["params"][name]["offsets"]) for name in shifts)


@pytest.mark.parametrize("kind", KINDS)
def test_known_integers_are_shifted_by_the_kernel_of_the_shift(kind):
    layer, x = CSC(features=9, shift=kind), random_images((5, 5, 9))
    variables = jax.jit(layer.init)(jax.random.key(0), x)
    frozen = str(jax.make_jaxpr(lambda x: layer.apply(variables, x))(x))
    assert "shift[" in frozen and "taps[" not in frozen
    given = str(jax.make_jaxpr(layer.apply)(variables, x))
    assert "shift[" not in given and "taps[" in given


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        "shiftresnet20",
        "shiftnet_c",
        pytest.param("shiftresnet50", marks=pytest.mark.slow),
        pytest.param("shiftfacenet", marks=pytest.mark.slow),
    ],
)
def test_networks_of_the_zoo_can_learn_their_shifts(name, kind):
    images = jax.ShapeDtypeStruct((1, *model_record(name).image_shape), jnp.float32)
    model = create_model(name, shift=kind, offsets_init="uniform")
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
    leaves = jax.tree_util.tree_leaves_with_path(shapes["params"])
    offsets = [leaf.size for path, leaf in leaves if path[-1].key == "offsets"]
    assert len(offsets) >= 9
    parameters = sum(leaf.size for _, leaf in leaves)
    assert parameters == model_record(name).parameters + sum(offsets)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shift": "actve"}, "shift is 'actve'.*Did you mean 'active'"),
        ({"shift": "active", "offsets": [(0, 0)] * 9}, "learns the offsets: leave offsets"),
        ({"shift": "sparse", "direction_weights": [1] * 9}, "leave offsets and direction_weights"),
    ],
)
def test_contradictions(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        CSC(features=9, **arguments).init(jax.random.key(0), jnp.zeros((1, 4, 4, 9)))
    if "offsets" not in arguments:
        with pytest.raises(InputError, match="leave|Did you mean"):
            create_model("shiftresnet20", **arguments)
