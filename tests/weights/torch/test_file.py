"""PyTorch files of all versions give their tensors by the names of state_dict."""

import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.weights.torch.file import read_torch
from tests.weights.torch_files import (
    KERNEL,
    Call,
    File,
    Name,
    New,
    Persistent,
    Raw,
    assert_same,
    in_zip,
    module,
    pickled,
    saved,
)

CONV = Name("torch.nn.modules.conv", "Conv2d")


@pytest.mark.parametrize(
    "options",
    [{}, {"legacy": True}, {"legacy": True, "python2": True, "location": "cuda:0"}],
    ids=["zip", "legacy", "python 2"],
)
class TestFormats:
    def test_state_dict(self, tmp_path, options):
        file = read_torch(saved(tmp_path / "a.pth", **options))
        assert_same(file.tensors, {"conv.weight": KERNEL, "bn.steps": np.int64([7])})
        assert file.metadata == {}

    def test_module_of_the_authors_in_data_parallel(self, tmp_path, options):
        file = File(**options)
        cls = Name("models.shiftresnet", "ShiftConv")
        if file.legacy:  # Classes come with their source, which may hold any bytes.
            cls = Persistent(("module", cls, "/home/x/models/shiftresnet.py", "class é: pass"))
        backend = Name("torch.nn.backends.thnn", "_get_thnn_function_backend")
        half, var = np.float32([0.5, 1]), np.float32([2, 3])
        conv = module(CONV, [("weight", file.parameter(KERNEL)), ("bias", None)], stride=(1, 1))
        bn = module(
            Name("torch.nn.modules.batchnorm", "BatchNorm2d"),
            [("weight", file.parameter(half))],
            [("running_var", file.tensor(var)), ("mask", file.tensor(half))],
            _backend=Call(backend, ()),
            _non_persistent_buffers_set=Call(Name("builtins", "set"), (["mask"],)),
        )
        net = module(cls, modules=[("conv", conv), ("bn", bn)], expansion=1.5)
        parallel = Name("torch.nn.parallel.data_parallel", "DataParallel")
        wrapped = module(parallel, modules=[("module", net)], device_ids=[0, 1], output_device=0)
        beside = {"optimizer": {"state": {0: {"momentum": file.tensor(half)}}}, "none": None}
        accuracy = file.tensor(np.array(91.5))
        root = {"net": wrapped, "acc": accuracy, "epoch": 3, "name": "x", **beside}
        file.save(tmp_path / "ckpt.t7", root)

        result = read_torch(tmp_path / "ckpt.t7")

        expected = {"conv.weight": KERNEL, "bn.weight": half, "bn.running_var": var}
        assert_same(result.tensors, expected)
        assert result.metadata == {"acc": 91.5, "epoch": 3, "name": "x"}

    def test_views_are_copied_by_their_strides(self, tmp_path, options):
        file = File(**options)
        storage = file.store(np.arange(12, dtype=np.float32))
        views = {
            "transposed": file.view(storage, 0, (4, 3), (1, 4)),
            "repeated": file.view(storage, 5, (2, 3), (0, 0)),
            "overlapping": file.view(storage, 9, (2, 2), (1, 1)),
            "tail": file.view(storage, 11, (1,), (2**59,)),
            "scalar": file.view(storage, 7, (), ()),
            "none": file.view(storage, 500, (0, 3), (3, 1)),
        }
        file.save(tmp_path / "a.pth", views)
        expected = {
            "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
            "repeated": np.full((2, 3), 5, np.float32),
            "overlapping": np.float32([[9, 10], [10, 11]]),
            "tail": np.float32([11]),
            "scalar": np.float32(7),
            "none": np.zeros((0, 3), np.float32),
        }
        tensors = read_torch(tmp_path / "a.pth").tensors
        assert_same(tensors, expected)
        tensors["scalar"][...] = -1
        assert 7 in tensors["transposed"]

    @pytest.mark.parametrize(
        ("offset", "shape", "strides"),
        [
            (1, (12,), (1,)),
            (0, (2, 2), (11, 1)),
            (12, (), ()),
            (-1, (2,), (1,)),
            (0, (2,), (-1,)),
            (0, (2, 2), (1,)),
            (2**70, (1,), (1,)),
            (0, (2**61, 0), (1, 1)),
            (0, (2**40, 2**40, 0), (1, 1, 1)),
            (0, ("x",), (1,)),
            (None, (1,), (1,)),
            (0, (1,) * 65, (1,) * 65),
        ],
    )
    def test_views_outside_their_storage(self, tmp_path, options, offset, shape, strides):
        file = File(**options)
        storage = file.store(np.arange(12, dtype=np.float32))
        file.save(tmp_path / "a.pth", {"layer.weight": file.view(storage, offset, shape, strides)})
        with pytest.raises(InputError, match="tensor 'layer.weight'"):
            read_torch(tmp_path / "a.pth")

    def test_every_truncation_is_told(self, tmp_path, options):
        whole = saved(tmp_path / "a.pth", **options).read_bytes()
        for length in np.linspace(0, len(whole) - 1, 60).astype(int):
            (tmp_path / "b.pth").write_bytes(whole[:length])
            with pytest.raises(InputError, match="b.pth"):
                read_torch(tmp_path / "b.pth")

    def test_flipped_bits_raise_nothing_else(self, tmp_path, options):
        whole = saved(tmp_path / "a.pth", **options).read_bytes()
        random, path, results = np.random.default_rng(0), tmp_path / "b.pth", []
        tracemalloc.start()
        for _ in range(300):
            damaged = bytearray(whole)
            # Mostly in the pickle: that is where the decisions are.
            end = len(whole) if random.random() < 0.3 else 500
            for place in random.integers(0, end, random.integers(1, 4)):
                damaged[place] = random.integers(256)
            path.write_bytes(damaged)
            try:
                read_torch(path)
                results.append(True)
            except InputError:
                results.append(False)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert 10 < sum(results) < 290  # Both happen, or the test tests nothing.
        assert peak < 100e6


def test_view_of_a_storage_as_old_torch_wrote_it(tmp_path):
    file = File(legacy=True, python2=True)
    storage = file.store(np.arange(12, dtype=np.float32))
    function = Name("torch._utils", "_rebuild_tensor")
    inside = Call(function, (storage.pid(True, ("5", 4, 6)), 2, (4,), (1,)))
    outside = Call(function, (storage.pid(True, ("5", 4, 6)), 2, (5,), (1,)))
    file.save(tmp_path / "a.pth", {"inside": inside})
    assert_same(read_torch(tmp_path / "a.pth").tensors, {"inside": np.float32([6, 7, 8, 9])})
    file.save(tmp_path / "a.pth", {"outside": outside})
    with pytest.raises(InputError, match="tensor 'outside' reaches beyond"):
        read_torch(tmp_path / "a.pth")


def test_big_endian_zip(tmp_path):
    saved(tmp_path / "a.pth", {"x": np.float32([1, 2]), "y": np.float64([3])})
    with zipfile.ZipFile(tmp_path / "a.pth") as old:
        entries = {name: old.read(name) for name in old.namelist()}
    entries["archive/byteorder"] = b"big"
    entries["archive/data/0"] = np.array([1, 2], ">f4").tobytes()
    entries["archive/data/1"] = np.array([3], ">f8").tobytes()
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as new:
        for name, data in entries.items():
            new.writestr(name, data)
    expected = {"x": np.float32([1, 2]), "y": np.float64([3])}
    assert_same(read_torch(tmp_path / "b.pth").tensors, expected)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n0000", "HDF5.*read_keras"),
        (b"\x1f\x8b\x08aaaa", "gzip.*unpack"),
        (b"\x40\0\0\0\0\0\0\0" + b'{"a":{}}', "safetensors.*read_safetensors"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"\x04\0\0\0\x01\0\0\0", "Lua Torch"),
        (b"hello there", "cannot be read as PyTorch weights"),
        (pickle.dumps({"a": 1}), "a pickle, but torch.save did not write it"),
        (pickle.dumps([[[]]]), "a pickle, but torch.save did not write it"),
        (b"PK\x03\x04 nonsense", "zip"),
        (pickled(0x1950A86A20F9469CFC6C) + pickled(1002), "version is not 1001"),
    ],
)
def test_other_files(tmp_path, content, words):
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_torch(tmp_path / "a.pth")


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_torch(tmp_path / "a.pth")
    with pytest.raises(InputError, match="directory"):
        read_torch(tmp_path)


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ({"epoch": 3}, "no tensors by name"),
        ({"state_dict": {}}, "no tensors by name"),
        ([1, 2], "no tensors by name"),
        ({"x": Call(Name("torch._utils", "_rebuild_qtensor"), (1,))}, "tensor 'x' is quantized"),
        ({"x": Call(Name("torch._utils", "_rebuild_sparse_tensor"), (1,))}, "'x' is sparse"),
        ({"x": Call(Name("torch._utils", "_rebuild_tensor"), (1, 2, 3, 4))}, "'x' is damaged"),
        (Raw(b"(X\x07\0\0\0storageQ."), "damaged|stack|storage"),
    ],
)
def test_what_is_not_weights(tmp_path, root, words):
    with pytest.raises(InputError, match=words):
        read_torch(in_zip(tmp_path / "a.pth", pickled(root)))


def test_numpy_scalars_and_arguments_beside_the_weights(tmp_path):
    file = File()
    args = New(Name("argparse", "Namespace"), {"lr": 0.1})
    file.save(tmp_path / "a.pth", {"state_dict": {"w": file.tensor(KERNEL)}, "args": args})
    assert read_torch(tmp_path / "a.pth").metadata == {}
    values = {"acc": np.float64(0.5), "n": np.int32(-3), "all": np.ones(3), "ok": np.bool_(True)}
    beside = Raw(pickle.dumps(values, 2)[2:-1])
    file.save(tmp_path / "a.pth", {"state_dict": {"w": file.tensor(KERNEL)}, "deep": beside})
    assert read_torch(tmp_path / "a.pth").metadata == {}
    for name in ("acc", "n", "ok"):
        beside = Raw(pickle.dumps(values[name], 2)[2:-1])
        file.save(tmp_path / "a.pth", {"state_dict": {"w": file.tensor(KERNEL)}, "value": beside})
        assert read_torch(tmp_path / "a.pth").metadata == {"value": values[name].item()}
