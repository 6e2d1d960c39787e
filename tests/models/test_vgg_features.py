"""VGG's convolutions come out the same from every origin, and other files are refused."""

import json
import sys

import jax
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.models.vgg_features import VggFeatures, read_vgg_features, vgg_layers
from shift_jax.tasks.perceptual_loss import vgg_features
from shift_jax.weights.safetensors_file import write_safetensors
from tests.weights.torch_files import File

WIDTHS = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}
# Where torchvision has its convolutions, among ReLUs and poolings.
POSITIONS = {
    16: (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28),
    19: (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34),
}
LAYERS = {
    depth: [f"{block}_{i + 1}" for block, n in enumerate(counts, start=1) for i in range(n)]
    for depth, counts in {16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}.items()
}


def random_kernels(depth, count=None):
    """By 1_1 …: HWIO and bias; those after 2_1 hardly fill any memory, and are not to be read."""
    rng, channels, kernels = np.random.default_rng(0), 3, {}
    for layer in LAYERS[depth][:count]:
        width = WIDTHS[int(layer[0])]
        if layer in ("1_1", "1_2", "2_1"):
            kernel = rng.normal(size=(3, 3, channels, width), scale=0.1).astype(np.float32)
            kernels[layer] = kernel, rng.normal(size=width).astype(np.float32)
        else:
            kernels[layer] = np.zeros((1, 1, 1, 1), np.float32), np.zeros(1, np.float32)
        channels = width
    return kernels


def torch_tensors(depth, kernels=None):
    kernels = random_kernels(depth) if kernels is None else kernels
    tensors = {}
    for position, (kernel, bias) in zip(POSITIONS[depth], kernels.values(), strict=False):
        tensors[f"features.{position}.weight"] = np.ascontiguousarray(kernel.transpose(3, 2, 0, 1))
        tensors[f"features.{position}.bias"] = bias
    return tensors | {"classifier.0.bias": np.ones(2, np.float32)}


def write_torch(path, tensors):
    file = File()
    file.save(path, {name: file.tensor(array) for name, array in tensors.items()})
    return path


def keras_arrays(kernels, name="block{}_conv{}.{}"):
    """In Keras's order of channels, which is BGR."""
    arrays = {}
    for layer, (kernel, bias) in kernels.items():
        kernel = kernel[:, :, ::-1] if layer == "1_1" else kernel
        arrays[name.format(*layer.split("_"), "kernel")] = kernel
        arrays[name.format(*layer.split("_"), "bias")] = bias
    return arrays


def write_keras(path, kernels):
    if path.suffix == ".npz":
        np.savez(path, **keras_arrays(kernels), **{"fc1.bias": np.ones(3, np.float32)})
        return path
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in keras_arrays(kernels, "block{0}_conv{1}/block{0}_conv{1}/{2}:0").items():
            file[name] = array
    return path


def assert_same(vgg, depth, kernels, names):
    assert vgg.depth == depth
    assert list(vgg.kernels) == names
    for (kernel, bias), name in zip(vgg.kernels.values(), names, strict=True):
        expected, expected_bias = kernels[name.removeprefix("block").replace("_conv", "_")]
        np.testing.assert_array_equal(kernel, expected)
        np.testing.assert_array_equal(bias, expected_bias)
        assert kernel.dtype == bias.dtype == np.float32


@pytest.mark.parametrize("depth", [16, 19])
def test_names_of_layers(depth):
    assert vgg_layers(depth) == tuple(f"relu{layer}" for layer in LAYERS[depth])


@pytest.mark.parametrize("depth", [16, 19])
def test_torchvision(tmp_path, depth):
    path = write_torch(tmp_path / "vgg.pth", torch_tensors(depth))
    vgg = read_vgg_features(path, depth, ["relu1_1", "relu2_1", "relu1_2"])
    names = ["block1_conv1", "block1_conv2", "block2_conv1"]
    assert_same(vgg, depth, random_kernels(depth), names)
    assert vgg.layers == ("relu1_1", "relu1_2", "relu2_1")
    np.testing.assert_allclose(vgg.mean, [123.675, 116.28, 103.53], rtol=1e-6)
    np.testing.assert_allclose(vgg.std, [58.395, 57.12, 57.375], rtol=1e-6)
    assert vgg.mean.dtype == vgg.std.dtype == np.float32


def test_torchvisions_weights_of_the_features_only_have_their_own_pixels(tmp_path):
    tensors = torch_tensors(16) | {"classifier.0.bias": np.full(2, np.nan, np.float32)}
    vgg = read_vgg_features(write_torch(tmp_path / "a.pth", tensors), 16, ["relu1_1"])
    np.testing.assert_allclose(vgg.mean, [123, 117, 104], atol=2e-3)
    np.testing.assert_allclose(vgg.std, 1, rtol=1e-6)


@pytest.mark.parametrize("depth", [16, 19])
@pytest.mark.parametrize("suffix", [".npz", ".h5"])
def test_keras(tmp_path, suffix, depth):
    path = write_keras(tmp_path / f"vgg{suffix}", random_kernels(depth))
    vgg = read_vgg_features(path, depth, ["relu1_2"])
    # Reversed once by the writer, as Keras has it, and once by the reader.
    assert_same(vgg, depth, random_kernels(depth), ["block1_conv1", "block1_conv2"])
    np.testing.assert_allclose(vgg.mean, [123.68, 116.779, 103.939], rtol=1e-6)
    np.testing.assert_allclose(vgg.std, 1, rtol=1e-6)


def test_our_safetensors(tmp_path):
    kernels = random_kernels(16)
    params = {
        "block{}_conv{}".format(*layer.split("_")): {"conv": {"kernel": kernel, "bias": bias}}
        for layer, (kernel, bias) in kernels.items()
    }
    params |= {"hidden1": {"bias": np.ones(2, np.float32)}}
    config = {"model": {"name": "vgg16"}, "data": {"mean": [0.5, 0.4, 0.3], "std": [0.2] * 3}}
    path = tmp_path / "vgg.safetensors"
    write_safetensors(path, {"params": params}, {"config": json.dumps(config)})
    vgg = read_vgg_features(path, 16, ["relu2_1"])
    assert_same(vgg, 16, kernels, ["block1_conv1", "block1_conv2", "block2_conv1"])
    np.testing.assert_allclose(vgg.mean, [127.5, 102, 76.5], rtol=1e-6)
    np.testing.assert_allclose(vgg.std, [51] * 3, rtol=1e-6)
    for config in ({}, {"data": {"mean": [0.5], "std": [0.2]}}, {"data": {"mean": 1, "std": 0}}):
        write_safetensors(path, {"params": params}, {"config": json.dumps(config)})
        with pytest.raises(InputError, match="does not say how to normalize RGB pixels"):
            read_vgg_features(path, 16, ["relu2_1"])


def test_it_is_a_pytree_that_jit_takes_as_an_argument(tmp_path):
    path = write_torch(tmp_path / "vgg.pth", torch_tensors(19))
    vgg = read_vgg_features(path, 19, ["relu2_1"])
    twice = jax.jit(lambda vgg: jax.tree.map(lambda x: 2 * x, vgg))(vgg)
    assert isinstance(twice, VggFeatures) and twice.depth == 19 and twice.layers == vgg.layers
    np.testing.assert_allclose(twice.mean, 2 * vgg.mean)
    np.testing.assert_allclose(twice.kernels["block2_conv1"][0], 2 * vgg.kernels["block2_conv1"][0])


def keras_features(arrays, photo, names):
    """What Keras computes: BGR less the means, correlations with zeros around, ReLU, pooling."""
    x = photo[..., ::-1].astype(np.float64) - [103.939, 116.779, 123.68]
    found = {}
    for name in names:
        if name.endswith("conv1") and name != "block1_conv1":
            height, width = (n // 2 * 2 for n in x.shape[:2])
            quarters = [x[i:height:2, j:width:2] for i in (0, 1) for j in (0, 1)]
            x = np.maximum.reduce(quarters)
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        height, width = x.shape[:2]
        kernel = arrays[f"{name}.kernel"].astype(np.float64)
        x = sum(
            padded[i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
        )
        x = np.maximum(x + arrays[f"{name}.bias"], 0)
        found[name.replace("block", "relu").replace("_conv", "_")] = x
    return found


def test_features_of_a_real_photo_by_real_weights(shared_data):
    image = pytest.importorskip("PIL.Image")
    path = shared_data / "weights" / "vgg19_conv1_1_to_conv3_4.npz"
    photo = shared_data / "photos" / "bsds" / "100075.jpg"
    for file in (path, photo):
        if not file.exists():
            pytest.skip(f"{file.name} is not here")
    photo = np.asarray(image.open(photo).convert("RGB"))[100:147, 200:253]
    layers = ("relu1_2", "relu2_2", "relu3_4")
    vgg = read_vgg_features(path, 19, layers)
    with np.load(path) as arrays:
        names = ["block{}_conv{}".format(*layer.split("_")) for layer in LAYERS[19][:8]]
        expected = keras_features(arrays, photo, names)
    found = jax.jit(lambda vgg, images: vgg_features(vgg, images, layers))(vgg, photo[None])
    assert list(found) == list(layers)
    for layer, features in found.items():
        scale = np.abs(expected[layer]).max()
        assert scale > 100  # Trained weights on a photo, not zeros.
        np.testing.assert_allclose(features[0], expected[layer], atol=1e-5 * scale)
    with pytest.raises(
        InputError, match=r"ends with block3_conv4 of VGG-19, before the layer relu4_3: .* relu3_4"
    ):
        read_vgg_features(path, 19, ["relu1_2", "relu4_3", "relu2_2"])
    with pytest.raises(InputError, match="is of VGG-19, expected VGG-16"):
        read_vgg_features(path, 16, ["relu1_2"])


def bad_files(tmp_path):
    """(path, depth, layers, what is said)."""
    normal = torch_tensors(16)
    resnet = {"conv1.weight": np.ones((64, 3, 7, 7), np.float32), "bn1.bias": np.ones(64)}
    batch_norm = normal | {"features.1.weight": np.ones(64, np.float32)}
    vgg13 = {
        f"features.{position}.{leaf}": np.ones(1, np.float32)
        for position in (0, 2, 5, 7, 10, 12, 15, 17, 20, 22)
        for leaf in ("weight", "bias")
    }
    wide = normal | {"features.2.weight": np.ones((64, 32, 3, 3), np.float32)}
    scalar = normal | {"features.0.weight": np.ones(64, np.float32)}
    holes = {name: x for name, x in normal.items() if not name.startswith("features.5.")}
    no_bias = {"features.0.weight": normal["features.0.weight"]}
    broken = normal | {"features.2.bias": np.full(64, np.nan, np.float32)}
    whole_numbers = normal | {"features.2.bias": np.ones(64, np.int64)}
    squeezenet = {
        "features.0.weight": np.ones((96, 3, 7, 7), np.float32),
        "features.0.bias": np.ones(96, np.float32),
        "features.3.squeeze.weight": np.ones((16, 96, 1, 1), np.float32),
    }
    names = {
        "resnet": (resnet, "is not of VGG-1[69] .*it has 'bn1.bias'"),
        "batch_norm": (batch_norm, "is not of VGG-1[69] .*it has 'features.1.weight'"),
        "vgg13": (vgg13, "is not of VGG-1[69] .*it has 'features.15.bias'"),
        "squeezenet": (squeezenet, "is not of VGG-1[69] .*it has 'features.3.squeeze.weight'"),
        "wide": (
            wide,
            r"'features.2.weight' has shape \(64, 32, 3, 3\), which is not a kernel of 64 fil",
        ),
        "scalar": (scalar, r"'features.0.weight' has shape \(64,\), which is not a kernel"),
        "holes": (holes, "is not of VGG-1[69] .*some of its convolutions are missing"),
        "no_bias": (no_bias, "is not of VGG-1[69] .*some of its convolutions are missing"),
        "broken": (broken, "cannot be used: Tensor 'features.2.bias' has numbers that are not"),
        "whole_numbers": (whole_numbers, "cannot be used: Tensor 'features.2.bias' is of type"),
        "vgg19": (torch_tensors(19), "is of VGG-19, expected VGG-16: choose the depth 19"),
    }
    for name, (tensors, said) in names.items():
        yield write_torch(tmp_path / f"{name}.pth", tensors), 16, ["relu1_2"], said
    yield (
        write_torch(tmp_path / "16.pth", normal),
        19,
        ["relu1_2"],
        "is of VGG-16, expected VGG-19: choose the depth 16",
    )
    short = write_keras(tmp_path / "short.npz", random_kernels(19, 3))
    yield short, 19, ["relu2_2"], "ends with block2_conv1 .* relu2_2: choose layers up to relu2_1"
    yield write_keras(tmp_path / "19.npz", random_kernels(19)), 16, ["relu1_2"], "is of VGG-19"
    np.savez(tmp_path / "else.npz", **{"conv1_conv.kernel": np.ones(3)})
    yield tmp_path / "else.npz", 16, ["relu1_2"], "is not of VGG-1[69] .*'conv1_conv.kernel'"
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    yield text, 16, ["relu1_2"], "cannot be read as PyTorch weights"
    for depth, name in ((16, "vgg16-397923af.pth"), (19, "vgg19-dcbb9e9d.pth")):
        get = f"https://.*{name} .* https://.*vgg{depth}_weights_tf_.*_notop.h5.*style.vgg_weights"
        yield tmp_path / "none.pth", depth, ["relu1_2"], f"no file '.*none.pth'.*{get}"
    yield "", 16, ["relu1_2"], "There is no file '' with the weights of VGG-16"
    yield tmp_path, 16, ["relu1_2"], "There is no file"
    yield short, 17, ["relu1_2"], "depth of VGG is 17, expected 16 or 19"
    yield short, 16, ["relu3_4"], "A layer of VGG-16 is 'relu3_4', expected .* Did you mean"
    yield short, 19, ["conv1_1"], "A layer of VGG-19 is 'conv1_1', expected"
    yield short, 19, [], "No layers of VGG-19 are given"


def test_what_is_wrong_is_told_in_one_sentence(tmp_path):
    for path, depth, layers, said in bad_files(tmp_path):
        with pytest.raises(InputError, match=said) as caught:
            read_vgg_features(path, depth, layers)
        assert "\n" not in str(caught.value)


def test_half_precision_is_read_as_float32(tmp_path):
    kernels = {k: (a.astype(np.float16), b) for k, (a, b) in random_kernels(16, 2).items()}
    vgg = read_vgg_features(write_keras(tmp_path / "half.npz", kernels), 16, ["relu1_2"])
    assert_same(vgg, 16, kernels, ["block1_conv1", "block1_conv2"])


def test_without_h5py_it_is_named(tmp_path, monkeypatch):
    path = write_keras(tmp_path / "vgg.h5", random_kernels(16, 1))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(InputError, match="pip install h5py"):
        read_vgg_features(path, 16, ["relu1_1"])
