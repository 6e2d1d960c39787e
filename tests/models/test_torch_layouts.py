"""Every layout names all variables of its network, as the public files do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax import create_model
from shift_jax.errors import InputError
from shift_jax.models.cifar_torch import grouped_from_interleaved
from shift_jax.models.vgg import keras_layout
from shift_jax.ops import shift_offsets
from shift_jax.weights.convert import class_count, image_channels, to_variables
from tests.models.small import quick_jit, random_images, random_variables, small_model
from tests.models.torch_tensors import layout_of, shapes_of, torch_tensors

WITH_LAYOUT = {
    "resnet20": {},
    "shiftresnet56": {},
    "depthwiseresnet20": {},
    "resnet50": {},
    "vgg16": {},
    "vgg19": {},
    "squeezenet": {},
    "facenet": {"num_classes": 5},
    "style_transformer": {"variant": "text"},
    "shift_style_transformer": {},
}


@pytest.mark.parametrize("name", WITH_LAYOUT)
def test_every_variable_has_its_own_tensor(name):
    model = create_model(name, **WITH_LAYOUT[name])
    shapes, layout = shapes_of(model), layout_of(name, WITH_LAYOUT[name])
    tensors = torch_tensors(shapes, layout)
    assert class_count(tensors, shapes, layout.tensor_layout()) == (model.num_classes or None)
    assert image_channels(tensors, shapes, layout.tensor_layout()) == 3
    if name not in ("facenet", "vgg16", "vgg19"):  # Too large to copy for a test.
        variables = to_variables(tensors, shapes, layout.tensor_layout())
        assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)


def test_names_of_public_files():
    """Some names of each kind, as facenet-pytorch, torchvision and fast_neural_style have them."""
    facenet = layout_of("facenet", {}).name
    assert facenet("trunk/conv6/norm") == "conv2d_4b.bn"
    assert facenet("trunk/stage1_block5/branches/branch0_conv0/conv") == "repeat_1.4.branch0.conv"
    assert facenet("trunk/stage2_block1/branches/branch1_conv2/norm") == "repeat_2.0.branch1.2.bn"
    assert facenet("trunk/reduction_a/branch0_conv0/conv") == "mixed_6a.branch0.conv"
    assert facenet("trunk/reduction_b/branch2_conv2/conv") == "mixed_7a.branch2.2.conv"
    assert facenet("trunk/stage3_last/up") == "block8.conv2d"
    assert layout_of("vgg19", {}).name("block5_conv4/conv") == "features.34"
    assert layout_of("vgg16", {}).name("block5_conv3/conv") == "features.28"
    squeezenet = layout_of("squeezenet", {"version": "1.0"}).name
    assert squeezenet("fire9/expand3x3/conv") == "features.12.expand3x3"
    style = layout_of("style_transformer", {"variant": "text"}).name
    assert style("residual3_conv2_norm") == "res3.in2" and style("up2/conv") == "deconv2.conv2d"
    shift = layout_of("shift_style_transformer", {}).name
    assert shift("up1/conv") == "deconv1.conv2d.conv" and shift("up2/conv") == "deconv2.conv2d"


@pytest.mark.parametrize(("channels", "kernel_size"), [(16, 3), (48, 3), (64, 5), (7, 3)])
def test_permuted_channels_have_the_directions_of_the_grouped_order(channels, kernel_size):
    interleaved = shift_offsets(channels, kernel_size, order="interleaved").astype(np.float32)
    tree = {
        "block": {
            "conv1": {"kernel": interleaved.T},
            "norm1": {"scale": np.arange(channels)},
            "conv2": {"kernel": interleaved},
        },
        "other": {"kernel": np.ones(2)},
    }
    permuted = grouped_from_interleaved({"params": tree}, kernel_size)["params"]
    expected = shift_offsets(channels, kernel_size, order="grouped")
    np.testing.assert_array_equal(permuted["block"]["conv2"]["kernel"], expected)
    np.testing.assert_array_equal(permuted["block"]["conv1"]["kernel"].T, expected)
    np.testing.assert_array_equal(np.sort(permuted["block"]["norm1"]["scale"]), np.arange(channels))
    assert permuted["other"] is tree["other"] or permuted["other"] == tree["other"]


def test_keras_vgg_reads_rgb_after_the_import():
    model = small_model("vgg16", num_classes=4)
    variables = random_variables(model, (32, 32, 3))
    names = {"hidden1": "fc1", "hidden2": "fc2", "classifier": "predictions"}
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"]):
        layer = path[0].key
        tensors[f"{names.get(layer, layer)}.{path[-1].key}"] = leaf
    imported = to_variables(tensors, variables, keras_layout())
    rgb = random_images((32, 32, 3))
    expected = quick_jit(model.apply)(variables, rgb[..., ::-1])
    np.testing.assert_allclose(quick_jit(model.apply)(imported, rgb), expected, rtol=1e-4)
    del tensors["fc2.bias"]
    with pytest.raises(InputError, match="no tensor 'fc2.bias'"):
        to_variables(tensors, variables, keras_layout())
