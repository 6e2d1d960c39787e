"""Networks come out of files whatever their names and wrappers; other files are told apart."""

import jax
import numpy as np
import pytest

from shift_jax import create_model
from shift_jax.errors import InputError
from shift_jax.models.read_network import read_network
from shift_jax.weights.safetensors_file import write_safetensors
from tests.models.torch_tensors import layout_of, shapes_of, torch_tensors
from tests.weights.torch_files import File


def save(path, tensors):
    """As torch.save does."""
    file = File()
    file.save(path, {name: file.tensor(array) for name, array in tensors.items()})
    return path


def tensors_of(model, seed=0, **arguments):
    """Random tensors of a network in PyTorch."""
    shapes = shapes_of(create_model(model, **arguments), (32, 32, 3))
    rng = np.random.default_rng(seed)
    tensors = torch_tensors(shapes, layout_of(model, arguments))
    return {name: rng.normal(size=x.shape).astype(np.float32) for name, x in tensors.items()}


@pytest.fixture(scope="module")
def tensors():
    return tensors_of("shiftresnet20", expansion=3)


@pytest.fixture(scope="module")
def expected(tensors, tmp_path_factory):
    path = save(tmp_path_factory.mktemp("plain") / "x.pth", tensors)
    return read_network(path, "shiftresnet20", {"expansion": 3}).variables


def assert_expected(path, expected):
    network = read_network(path, "shiftresnet20", {"expansion": 3})
    assert network.num_classes == 10 and network.image_channels == 3
    jax.tree.map(np.testing.assert_array_equal, network.variables, expected)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model._orig_mod.", "net.module.", "my_backbone."]
)
def test_what_wrappers_put_before_all_names(prefix, tensors, expected, tmp_path):
    wrapped = {prefix + name: array for name, array in tensors.items()}
    assert_expected(save(tmp_path / "x.pth", wrapped), expected)


@pytest.mark.parametrize("ending", ["", ".safetensors", ".h5", ".npz", ".ckpt"])
def test_the_content_counts_and_not_the_ending(ending, tensors, expected, tmp_path):
    assert_expected(save(tmp_path / f"x{ending}", tensors), expected)


@pytest.mark.parametrize("prefix", ["", "model."])
def test_safetensors_in_the_layout_of_pytorch(prefix, tensors, expected, tmp_path):
    path = tmp_path / "x.bin"
    write_safetensors(path, {prefix + n: x for n, x in tensors.items()}, {"format": "pt"})
    assert_expected(path, expected)
    with pytest.raises(InputError, match="does not say which network it is of: give --model"):
        read_network(path)


def test_keras_weights_by_their_content(tmp_path):
    np.savez(tmp_path / "x.npz", **{"block1_conv1.kernel": np.zeros((3, 3, 3, 64), np.float32)})
    (tmp_path / "x.npz").rename(tmp_path / "x.pth")
    with pytest.raises(InputError, match="no tensor 'block1_conv1.bias', .* in Keras"):
        read_network(tmp_path / "x.pth", "vgg16")
    with pytest.raises(InputError, match="Keras files are read for vgg16 and vgg19 only"):
        read_network(tmp_path / "x.pth", "resnet50")


@pytest.mark.parametrize(
    ("model", "arguments"), [("resnet20", {}), ("shiftresnet20", {}), ("shiftresnet56", {})]
)
def test_a_file_of_another_network(model, arguments, tensors, tmp_path):
    path = save(tmp_path / "x.pth", {f"module.{name}": array for name, array in tensors.items()})
    with pytest.raises(InputError, match=r"'layer1.*It fits shiftresnet20, expansion=3.$"):
        read_network(path, model, arguments)


def test_a_file_that_fits_no_network(tmp_path):
    tensors = tensors_of("resnet20")
    tensors["layer3.2.bn2.scale"] = tensors.pop("layer3.2.bn2.weight")
    path = save(tmp_path / "x.pth", tensors)
    differs = "he file has no tensor 'layer3.2.bn2.weight', which the network has in the authors'"
    with pytest.raises(
        InputError, match=f"nearest network is resnet20, but for that one t{differs}"
    ):
        read_network(path, "shiftresnet20")
    with pytest.raises(InputError, match=f"^T{differs}") as error:
        read_network(path, "resnet20")
    assert "nearest" not in str(error.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"no.pth cannot be read \(No such file or directory\)"):
        read_network(tmp_path / "no.pth", "resnet20")
