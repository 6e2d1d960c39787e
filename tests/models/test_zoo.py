"""What every registered network must do."""

import re
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from shift_jax import create_model, list_models
from shift_jax.counting import layer_table
from shift_jax.errors import InputError
from shift_jax.models import model_record
from shift_jax.models.network import FeatureMap
from shift_jax.ops import implementation
from shift_jax.weights.convert import our_layout, to_variables
from shift_jax.weights.safetensors_file import read_safetensors, write_safetensors
from tests.models.small import quick_jit, random_images, random_variables, small_model, small_shape

# Other tests register networks of their own.
NAMES = [name for name in list_models() if not name.startswith("tiny")]
# The others differ from one of these by depth or width only, which `small_model` takes away.
# The everyday run compiles the smaller shift networks, and what they are compared with on CIFAR.
_LARGE = ("shiftresnet50", "shiftnet_a", "shiftfacenet")
COMPILED = [
    pytest.param(
        n, marks=() if ("shift" in n or "20" in n) and n not in _LARGE else pytest.mark.slow
    )
    for n in NAMES
    if "56" not in n and "110" not in n and n not in ("vgg19", "shiftnet_b")
]
# Networks with equal small ones differ by depth only.
SMALL = {small_model(name): name for name in reversed(NAMES)}.values()
# Deeper CIFAR networks take long to trace, and have the shapes of those of depth 20.
TRACED = [pytest.param(n, marks=pytest.mark.slow if "110" in n or "56" in n else ()) for n in NAMES]
CLASSIFIERS = [name for name in NAMES if model_record(name).num_classes is not None]


@lru_cache(maxsize=16)
def shapes(model, image_shape, batch=2):
    """Abstract outputs and variables; only shapes are computed."""
    images = jax.ShapeDtypeStruct((batch, *image_shape), jnp.float32)
    return jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x), images)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # They take long, and tell little that smaller and narrower networks do not.
        pytest.param(name, count, marks=pytest.mark.slow if "110" in name or wider else ())
        for name in NAMES
        for index, count in enumerate(model_record(name).counts)
        for wider in [index > 0 and name in ("as_resnet", "as_resnet_cifar", "fe_net")]
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.arguments),
)
def test_parameters_and_macs_are_those_of_the_record(name, count):
    model = create_model(name, **count.arguments)
    image_shape = model_record(name).image_shape
    rows = layer_table(model, image_shape)
    assert sum(row.params for row in rows) == count.parameters
    assert sum(row.macs for row in rows) == count.macs


@pytest.mark.parametrize("name", NAMES)
def test_records_are_complete_and_frozen(name):
    record = model_record(name)
    assert record.parameters == record.counts[0].parameters and record.macs == record.counts[0].macs
    assert len(record.mean) == len(record.std) == record.image_shape[-1] == 3
    assert 0 < record.crop <= 1 and record.paper
    assert hash(record)
    with pytest.raises(AttributeError):
        record.crop = 0.5
    with pytest.raises(TypeError):
        record.counts[0].arguments["width"] = 2


# ShiftNets without BatchNorm; the reading of ShuffleNet that we did not take; identities.
OTHER_NUMBERS = {4163144, 1170712, 777800, 5647672, 10000}


@pytest.mark.parametrize(
    "text", sorted({model_record(name).help for name in NAMES}), ids=lambda text: text[:20]
)
def test_docstrings_have_the_counts_and_no_others(text):
    records = [model_record(name) for name in NAMES if model_record(name).help == text]
    counts = [count for record in records for count in record.counts]
    recorded = {number for count in counts for number in (count.parameters, count.macs)}
    said = {int(number.replace(",", "")) for number in re.findall(r"\d+(?:,\d{3})+", text)}
    assert recorded <= said <= recorded | OTHER_NUMBERS
    tables = [re.findall(r"\d+", record.table) for record in records]
    cited = re.findall(r"\d+", " ".join(re.findall(r"Tables? (\d+(?:(?:, | and )\d+)*)", text)))
    assert all(not numbers or set(numbers) & set(cited) for numbers in tables)


@pytest.mark.parametrize("name", SMALL)
def test_saved_variables_load_unchanged(name, tmp_path):
    model = small_model(name)
    variables = random_variables(model, small_shape(name))
    write_safetensors(tmp_path / "x.safetensors", variables, {"model": name})
    loaded, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert metadata == {"model": name}
    jax.tree.map(np.testing.assert_array_equal, loaded, variables)
    tensors = flatten_dict(loaded, sep="/")
    converted = to_variables(tensors, variables, our_layout())
    jax.tree.map(np.testing.assert_array_equal, converted, variables)


@pytest.mark.parametrize("name", COMPILED)
def test_forward_and_gradient_are_finite_under_jit(name):
    model, images = small_model(name), random_images(small_shape(name))
    variables = random_variables(model, small_shape(name))

    def loss(params):
        outputs, _ = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(1)},
        )
        weights = jnp.linspace(-1, 1, outputs.size).reshape(outputs.shape)
        return (weights * outputs).sum(), outputs

    (value, outputs), gradient = quick_jit(jax.value_and_grad(loss, has_aux=True))(
        variables["params"]
    )
    assert outputs.dtype == jnp.float32 and np.isfinite(outputs).all() and np.isfinite(value)
    if name in CLASSIFIERS:
        assert outputs.shape == (2, 5)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.asarray(leaf).any(), f"no gradient reaches {path}"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=() if n in ("shiftresnet20", "resnet20") else pytest.mark.slow)
        for n in (param.values[0] for param in COMPILED)
    ],
)
def test_no_tracer_leaks_from_a_gradient(name):
    model = small_model(name)

    def loss(variables, images):
        rngs = {"dropout": jax.random.key(1)}
        outputs, updates = model.apply(
            variables, images, train=True, mutable=["batch_stats"], rngs=rngs
        )
        return outputs.sum(), updates

    images = jax.ShapeDtypeStruct((2, *small_shape(name)), jnp.float32)
    with jax.checking_leaks():
        variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), images)
        jax.eval_shape(jax.jit(jax.grad(loss, has_aux=True)), variables, images)


@pytest.mark.parametrize("name", COMPILED)
def test_bfloat16_is_near_float32(name):
    images = random_images(small_shape(name))
    # Of classifiers the features: logits are small differences of large numbers.
    arguments = {"num_classes": 0} if name in CLASSIFIERS else {}
    models = [small_model(name, dtype=dtype, **arguments) for dtype in (jnp.float32, jnp.bfloat16)]
    variables = random_variables(models[0], small_shape(name))
    exact, rounded = (quick_jit(model.apply)(variables, images) for model in models)
    assert rounded.dtype == (jnp.bfloat16 if name in CLASSIFIERS else jnp.float32)
    assert np.linalg.norm(exact - rounded) < 0.1 * np.linalg.norm(exact)


@pytest.mark.parametrize("name", TRACED)
def test_feature_maps_have_their_channels_and_strides(name):
    record = model_record(name)
    maps, variables = shapes(create_model(name, features_only=True), record.image_shape)
    assert len(maps) >= 3 and all(isinstance(each, FeatureMap) for each in maps)
    assert len({each.name for each in maps}) == len(maps)
    for each in maps:
        _, height, width, _ = each.array.shape
        for side, pixels in ((height, record.image_shape[0]), (width, record.image_shape[1])):
            # Convolutions without padding lose a few rows.
            assert pixels / each.stride - 5 <= side <= pixels / each.stride
    if "resnet" in name and "50" not in name and name != "as_resnet":
        assert [(each.name, each.channels, each.stride) for each in maps] == [
            ("stem", 16, 1),
            ("group1", 16, 1),
            ("group2", 32, 2),
            ("group3", 64, 4),
        ]
    _, whole = shapes(create_model(name), record.image_shape)
    paths = {path for path, _ in jax.tree_util.tree_leaves_with_path(variables)}
    assert paths < {path for path, _ in jax.tree_util.tree_leaves_with_path(whole)}


@pytest.mark.parametrize("name", TRACED)
def test_other_image_sizes_and_numbers_of_classes(name):
    """One trace for each of two networks: traces are what this costs."""
    image_shape, other_shape = model_record(name).image_shape, (96, 130, 3)
    if name not in CLASSIFIERS:
        _, variables = shapes(create_model(name), image_shape)
        _, others = shapes(create_model(name), other_shape)
    else:
        features, variables = shapes(create_model(name, num_classes=0), image_shape)
        assert features.ndim == 2 and features.shape[1] > 7
        assert "classifier" not in variables["params"]
        logits, others = shapes(create_model(name, num_classes=7, dtype=jnp.bfloat16), other_shape)
        assert logits.shape == (2, 7) and logits.dtype == jnp.float32
        others = {**others, "params": {**others["params"]}}
        del others["params"]["classifier"]
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, others)
    with pytest.raises(InputError, match=r"Images of shape \(2, 0, 64, 3\) do not fit"):
        shapes(create_model(name), (0, 64, 3))


def test_images_must_have_a_batch_axis():
    with pytest.raises(InputError, match="expected .batch, height, width, channels."):
        jax.eval_shape(create_model("shiftnet_c").init, jax.random.key(0), jnp.zeros((32, 32, 3)))


@pytest.mark.parametrize("name", ["facenet", "alexnet", "vgg16", "style_transformer", "fe_net"])
def test_images_that_are_too_small(name):
    with pytest.raises(InputError, match="sides of at least"):
        shapes(create_model(name), (4, 4, 3))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if "110" in n or "56" in n else ())
        for n in list_models("shift*")
        if "style" not in n
    ],
)
def test_every_shift_network_has_sc2(name):
    csc, sc2 = (shifts_and_parameters(name, module) for module in ("csc", "sc2"))
    assert csc[1] == sc2[1]
    # Not twice as many everywhere: ShiftNet-B has too few channels for the first one.
    assert sc2[0] > 1.9 * csc[0] > 0


def shifts_and_parameters(name, module):
    """How many shifts the traced network does, and how many parameters it has."""
    model = create_model(name, module=module)
    images = jax.ShapeDtypeStruct((1, *model_record(name).image_shape), jnp.float32)
    with implementation("xla"):
        jaxpr, (_, variables) = jax.make_jaxpr(
            lambda x: model.init_with_output(jax.random.key(0), x), return_shape=True
        )(images)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return len(re.findall(r"= shift\[", str(jaxpr))), parameters


def test_features_are_those_that_lead_to_the_logits():
    model = small_model("shiftnet_c")
    images, variables = random_images((33, 37, 3)), random_variables(model, (33, 37, 3))
    maps = quick_jit(model.clone(features_only=True).apply)(variables, images)
    features = quick_jit(model.clone(num_classes=0).apply)(variables, images)
    np.testing.assert_allclose(maps[-1].array.mean((1, 2)), features, rtol=1e-6)
    classifier = variables["params"]["classifier"]
    logits = np.asarray(features) @ classifier["kernel"] + classifier["bias"]
    np.testing.assert_allclose(
        quick_jit(model.apply)(variables, images), logits, rtol=1e-4, atol=1e-5
    )
