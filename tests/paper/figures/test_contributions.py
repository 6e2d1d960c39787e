import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax import create_model
from shift_jax.errors import InputError
from shift_jax.layers import CSC, SC2, ShiftConv
from shift_jax.ops import shift, shift_offsets
from shift_jax.paper.figures.contributions import (
    channel_contributions,
    direction_map,
    direction_names,
    find_module,
    ranked_groups,
)
from tests.models.small import random_variables, small_model

CROSS = (0, 1, 0, 1, 1, 1, 0, 1, 0)


class Net(nn.Module):
    """One layer of each kind; some shift nothing."""

    @nn.compact
    def __call__(self, x, train):
        x = CSC(10, expansion=4, kernel_size=5, order="interleaved", name="wide")(x, train)
        x = SC2(11, expansion=2, dilation=2, stride=2, name="double")(x, train)
        x = CSC(11, expansion=2, direction_weights=CROSS, name="cross")(x, train)
        x = ShiftConv(7, kernel_size=5, name="too_few")(x)
        x = ShiftConv(4, kernel_size=1, name="pointwise")(x)
        return ShiftConv(3, offsets=[(0, 0), (-6, 0), (0, 3), (3, 3)], name="far")(x)


SHAPE = (6, 6, 10)


@pytest.fixture(scope="module")
def variables():
    images = jax.ShapeDtypeStruct((1, *SHAPE), jnp.float32)
    shapes = jax.eval_shape(lambda x: Net().init(jax.random.key(0), x, False), images)
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), shapes)


@pytest.fixture
def modules(variables):
    return {each.layer: each for each in channel_contributions(Net(), variables, SHAPE)}


def test_every_layer_that_shifts_is_found_with_its_offsets(modules):
    assert {
        layer: (each.module, each.kernel_size, each.dilation, each.in_channels, each.out_channels)
        for layer, each in modules.items()
    } == {
        "wide/conv2": ("wide", 5, 1, 10, 10),
        "double/conv1": ("double", 3, 2, 10, 11),
        "double/conv2": ("double", 3, 2, 10, 11),
        "cross/conv2": ("cross", 3, 1, 11, 11),
        "far": ("far", 5, 3, 4, 3),
    }
    wide = shift_offsets(40, 5, order="interleaved")
    np.testing.assert_array_equal(modules["wide/conv2"].offsets, wide)
    np.testing.assert_array_equal(modules["double/conv1"].offsets, shift_offsets(10, 3, 2))
    assert modules["far"].offsets.tolist() == [[0, 0], [-6, 0], [0, 3], [3, 3]]


def test_contributions_are_norms_of_the_rows(modules, variables):
    for layer, module in modules.items():
        kernel = variables["params"]
        for name in (*layer.split("/"), "kernel"):
            kernel = kernel[name]
        expected = [sum(float(weight) ** 2 for weight in row) ** 0.5 for row in kernel]
        np.testing.assert_allclose(module.norms, expected, rtol=1e-12)


def test_offsets_say_what_the_layer_does(modules, variables):
    """Each channel alone comes out as its shifted self times its row of the kernel."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 9, 9, 4)), jnp.float32)
    layer = ShiftConv(3, offsets=[(0, 0), (-6, 0), (0, 3), (3, 3)])
    params = {"params": variables["params"]["far"]}
    shifted = shift(x, offsets=modules["far"].offsets)
    expected = np.einsum("bhwc,cn->bhwn", shifted, params["params"]["kernel"])
    np.testing.assert_allclose(layer.apply(params, x), expected, rtol=1e-4, atol=1e-5)


def test_groups_and_map_of_directions(modules):
    for module in modules.values():
        size, half = module.kernel_size, module.kernel_size // 2
        found = direction_map(module)
        assert found.shape == (size, size)
        for row in range(size):
            for column in range(size):
                offset = [(row - half) * module.dilation, (column - half) * module.dilation]
                channels = [c for c, o in enumerate(module.offsets.tolist()) if o == offset]
                assert module.shift_groups[row * size + column].tolist() == channels
                if channels:
                    assert found[row, column] == pytest.approx(module.norms[channels].mean())
                else:
                    assert np.isnan(found[row, column])
    assert np.isnan(direction_map(modules["cross/conv2"])).sum() == 4


def test_channels_are_ranked_within_their_groups(modules):
    module = modules["wide/conv2"]
    ranked = ranked_groups(module)
    for channels, group in zip(ranked, module.shift_groups, strict=True):
        assert sorted(channels) == group.tolist()
        assert (np.diff(module.norms[channels]) <= 0).all()
    # With 40 channels the center has one of its own and 15 left over.
    assert [len(channels) for channels in ranked] == [1] * 12 + [16] + [1] * 12


def test_names_of_directions():
    assert direction_names(3) == ["TL", "T", "TR", "L", "C", "R", "BL", "B", "BR"]
    names = direction_names(5)
    assert (names[0], names[12], names[13], names[24]) == ("-2,-2", "0,0", "0,+1", "+2,+2")


def test_the_module_of_the_paper_is_the_default():
    model = create_model("shiftresnet20", expansion=9)
    modules = channel_contributions(model, random_variables(model, (8, 8, 3)), (8, 8, 3))
    assert len(modules) == 9
    chosen = find_module(modules, None)
    assert (chosen.layer, chosen.in_channels, len(chosen.norms)) == ("group1_block1/conv2", 16, 144)
    assert {len(channels) for channels in chosen.shift_groups} == {16}
    # As in the first 16 rows of grouped channels.
    assert chosen.shift_groups[0].tolist() == list(range(16))


def test_modules_by_name(modules):
    found = list(modules.values())
    assert find_module(found, None).layer == "wide/conv2"
    assert find_module(found, "double").layer == "double/conv2"
    assert find_module(found, "double/conv1").layer == "double/conv1"
    assert find_module([modules["double/conv1"], modules["far"]], None).layer == "double/conv1"
    with pytest.raises(InputError, match="in a module 'crosss', only in .* Did you mean 'cross'"):
        find_module(found, "crosss")


@pytest.mark.parametrize(
    ("name", "kernel_sizes"),
    [("shiftnet_a", {5, 3}), ("shift_style_transformer", {3, 5})],
)
def test_other_families(name, kernel_sizes):
    model = small_model(name)
    modules = channel_contributions(model, random_variables(model, (32, 32, 3)), (32, 32, 3))
    assert {module.kernel_size for module in modules} == kernel_sizes
    chosen = find_module(modules, None)
    assert chosen.in_channels == chosen.out_channels


def test_bad_input(variables):
    resnet = create_model("resnet20")
    with pytest.raises(InputError, match="CifarNet shifts no channel"):
        channel_contributions(resnet, {}, (8, 8, 3))
    with pytest.raises(InputError, match=r"no kernel of shape \(40, 10\) at wide/conv2"):
        channel_contributions(Net(), {"params": {}}, SHAPE)
    with pytest.raises(InputError, match=r"no kernel of shape \(40, 10\) at wide/conv2"):
        other = {**variables["params"], "wide": variables["params"]["double"]}
        channel_contributions(Net(), {"params": other}, SHAPE)
    with pytest.raises(InputError, match=r"expected integers of shape \(10, 2\)"):
        channel_contributions(ShiftConv(3, offsets=[1, 2]), {}, SHAPE)
    broken = jax.tree.map(np.copy, variables)
    broken["params"]["far"]["kernel"][1, 1] = np.nan
    with pytest.raises(InputError, match="kernel of far has weights that are not finite"):
        channel_contributions(Net(), broken, SHAPE)
