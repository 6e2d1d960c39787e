"""Keras weights of all its versions are read by the same names, and hostile files are refused."""

import io
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.weights.keras_file import read_keras

KERNEL = np.arange(54, dtype=np.float32).reshape(3, 3, 3, 2)
BIAS = np.float32([1, -1])
EXPECTED = {"block1_conv1.kernel": KERNEL, "block1_conv1.bias": BIAS}


def write_h5(path, arrays, attributes=()):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
        for group, name in dict(attributes).items():
            file[group].attrs["name"] = name
    return path


def assert_same(named, expected):
    assert set(named) == set(expected)
    for name, array in named.items():
        assert array.dtype == expected[name].dtype and array.flags.c_contiguous
        assert array.flags.writeable
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.parametrize(
    ("kernel", "bias"),
    [
        ("block1_conv1/block1_conv1_W_1:0", "block1_conv1/block1_conv1_b_1:0"),
        ("block1_conv1/block1_conv1_W:0", "block1_conv1/block1_conv1_b:0"),
        ("block1_conv1/block1_conv1/kernel:0", "block1_conv1/block1_conv1/bias:0"),
        ("block1_conv1/block1_conv1_3/kernel:0", "block1_conv1/block1_conv1_3/bias:0"),
        ("model_weights/block1_conv1/block1_conv1/kernel", "model_weights/block1_conv1/bias"),
        ("layers/block1_conv1/vars/0", "layers/block1_conv1/vars/1"),
    ],
)
def test_names_of_all_versions(tmp_path, kernel, bias):
    if "model_weights" in kernel:
        bias = "model_weights/block1_conv1/block1_conv1/bias"
    beside = {"optimizer_weights/x:0": BIAS} if "model_weights" in kernel else {}
    path = write_h5(tmp_path / "a.h5", {kernel: KERNEL, bias: BIAS} | beside)
    assert_same(read_keras(path), EXPECTED)


def test_models_within_models_and_other_layers(tmp_path):
    arrays = {
        "vgg/conv1/kernel:0": KERNEL,
        "vgg/conv2/kernel:0": KERNEL + 1,
        "inner/inner/conv3/kernel": KERNEL + 2,
        "bn/bn/gamma:0": BIAS,
        "bn/bn/moving_variance:0": BIAS + 1,
    }
    names = ["vgg.conv1.kernel", "vgg.conv2.kernel", "inner.conv3.kernel"]
    names += ["bn.gamma", "bn.moving_variance"]
    path = write_h5(tmp_path / "a.h5", arrays)
    assert_same(read_keras(path), dict(zip(names, arrays.values(), strict=True)))


def test_keras_3_numbers(tmp_path):
    arrays = {
        "layers/conv2d/vars/0": KERNEL,
        "layers/conv2d/vars/1": BIAS,
        "layers/batch_normalization/vars/0": BIAS,
        "layers/batch_normalization/vars/1": BIAS + 1,
        "layers/sequential/layers/conv2d/vars/0": KERNEL + 1,
        "layers/sequential/layers/conv2d_1/vars/0": KERNEL + 2,
        "optimizer/vars/0": BIAS,
    }
    names = {
        "layers/conv2d/vars": "block1_conv1",
        "layers/batch_normalization/vars": "bn1",
        "layers/sequential/layers/conv2d/vars": "inner",
    }
    path = write_h5(tmp_path / "a.weights.h5", arrays, names)
    expected = {
        **EXPECTED,
        "bn1.0": BIAS,
        "bn1.1": BIAS + 1,
        "sequential.inner.kernel": KERNEL + 1,
        "sequential.conv2d_1.kernel": KERNEL + 2,
    }
    assert_same(read_keras(path), expected)


@pytest.mark.parametrize("name", ["block1_conv1.{}", "block1_conv1/{}:0"])
def test_npz(tmp_path, name):
    arrays = {name.format("kernel"): np.asfortranarray(KERNEL), name.format("bias"): BIAS}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    assert_same(read_keras(tmp_path / "a.npz"), EXPECTED)


def test_real_vgg19(shared_data):
    path = shared_data / "weights" / "vgg19_conv1_1_to_conv3_4.npz"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    named = read_keras(path)
    widths = {1: 64, 2: 128, 3: 256}
    layers = [(1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3), (3, 4)]
    expected, before = {}, 3
    for block, index in layers:
        expected[f"block{block}_conv{index}.kernel"] = (3, 3, before, widths[block])
        expected[f"block{block}_conv{index}.bias"] = (before := widths[block],)
    assert {name: array.shape for name, array in named.items()} == expected
    assert {array.dtype for array in named.values()} == {np.dtype(np.float32)}
    with np.load(path) as theirs:
        assert all(np.array_equal(named[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("kind", ["h5", "npz"])
def test_damage_is_told(tmp_path, kind):
    if kind == "h5":
        path = write_h5(tmp_path / "a.h5", {"conv/kernel:0": KERNEL, "conv/bias:0": BIAS})
    else:
        path = tmp_path / "a.npz"
        np.savez_compressed(path, **{"conv.kernel": KERNEL, "conv.bias": BIAS})
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="a.h5|a.npz"):
            read_keras(path)
    random, results = np.random.default_rng(0), []
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read_keras(path)
            results.append(True)
        except InputError:
            results.append(False)
    assert 5 < sum(results) < 200


class TestHostileNpz:
    def refuse(self, path, words):
        tracemalloc.start()
        with pytest.raises(InputError, match=words):
            read_keras(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40e6

    def test_objects(self, tmp_path):
        np.savez(tmp_path / "a.npz", **{"conv.kernel": np.array([{}], object)})
        self.refuse(tmp_path / "a.npz", "'conv.kernel' holds object")

    def test_zip_bomb(self, tmp_path):
        np.savez_compressed(tmp_path / "a.npz", **{"conv.kernel": np.zeros(20_000_000)})
        self.refuse(tmp_path / "a.npz", "arrays would need 1600")

    def test_header_that_lies(self, tmp_path):
        stream = io.BytesIO()
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**12,)}
        np.lib.format.write_array_header_1_0(stream, header)
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr("conv.kernel.npy", stream.getvalue() + bytes(100))
        self.refuse(tmp_path / "a.npz", "'conv.kernel' claims 4000000000000 bytes")

    @pytest.mark.parametrize("name", ["kernel.npy", "conv.kernel.txt", "conv.kernel"])
    def test_other_names(self, tmp_path, name):
        with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
            archive.writestr(name, b"\x93NUMPY")
        self.refuse(tmp_path / "a.npz", "'(conv.)?kernel")

    def test_whole_keras_model(self, tmp_path):
        with zipfile.ZipFile(tmp_path / "a.keras", "w") as archive:
            archive.writestr("model.weights.h5", b"")
        self.refuse(tmp_path / "a.keras", "unpack model.weights.h5")


class TestHostileHdf5:
    @pytest.fixture
    def h5py(self):
        return pytest.importorskip("h5py")

    def refuse(self, path, words):
        with pytest.raises(InputError, match=words):
            read_keras(path)

    def test_more_than_the_file(self, tmp_path, h5py):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("conv/kernel", (10**6, 10**6), "f4", chunks=(10, 10))
        self.refuse(tmp_path / "a.h5", "would need 4000000000000 bytes")

    def test_other_files(self, tmp_path, h5py):
        (tmp_path / "secret").write_bytes(bytes(100))
        with h5py.File(tmp_path / "a.h5", "w") as file:
            place = [(str(tmp_path / "secret"), 0, 40)]
            file.create_dataset("conv/kernel", (10,), "f4", external=place)
        self.refuse(tmp_path / "a.h5", "kept in another file")
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file["conv"] = h5py.ExternalLink("a.h5", "conv")
        self.refuse(tmp_path / "b.h5", "a link 'conv'")
        with h5py.File(tmp_path / "c.h5", "w") as file:
            layout = h5py.VirtualLayout((10,), "f4")
            layout[:] = h5py.VirtualSource(tmp_path / "a.h5", "conv/kernel", (10,))
            file.create_virtual_dataset("conv/kernel", layout)
        self.refuse(tmp_path / "c.h5", "kept in another file")

    def test_circles(self, tmp_path, h5py):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            group = file.create_group("conv")
            group["a"] = group["b"] = group
        self.refuse(tmp_path / "a.h5", "'a' in two places")

    def test_model_weights_elsewhere(self, tmp_path, h5py):
        write_h5(tmp_path / "other.h5", {"conv/kernel": KERNEL})
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file["model_weights"] = h5py.ExternalLink("other.h5", "/")
        self.refuse(tmp_path / "a.h5", "a link 'model_weights'")

    def test_strings(self, tmp_path, h5py):
        path = write_h5(tmp_path / "a.h5", {"conv/kernel": ["a", "b"]})
        self.refuse(path, "'conv/kernel' holds object")

    def test_without_layers(self, tmp_path, h5py):
        self.refuse(write_h5(tmp_path / "a.h5", {"kernel": KERNEL}), "'kernel' belongs to no layer")
        with h5py.File(tmp_path / "a.h5", "w"):
            pass
        self.refuse(tmp_path / "a.h5", "no arrays")

    def test_without_h5py(self, tmp_path, monkeypatch, h5py):
        path = write_h5(tmp_path / "a.h5", {"conv/kernel": KERNEL})
        monkeypatch.setitem(sys.modules, "h5py", None)
        self.refuse(path, "pip install h5py")


def test_other_files(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"<html>")
    with pytest.raises(InputError, match="neither"):
        read_keras(tmp_path / "a.h5")
    with pytest.raises(InputError, match="No such file"):
        read_keras(tmp_path / "b.h5")
    with pytest.raises(InputError, match="directory"):
        read_keras(tmp_path)
