"""PyTorch files give their tensors, and nothing in them is ever run, however they are made."""

import io
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.weights.torch.file import read_torch
from tests.weights.torch_files import (
    Call,
    File,
    Name,
    New,
    Persistent,
    Raw,
    module,
    pickled,
)

KERNEL = np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2)
RANDOM = np.random.default_rng(0)
CONV = Name("torch.nn.modules.conv", "Conv2d")


def saved(path, tensors=None, **options):
    """Writes a state dict of two tensors."""
    file = File(**options)
    tensors = {"conv.weight": KERNEL, "bn.steps": np.int64([7])} if tensors is None else tensors
    file.save(path, OrderedDict((name, file.tensor(array)) for name, array in tensors.items()))
    return path


def in_zip(path, pickle_bytes, storages=()):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle_bytes)
        for key, data in storages:
            archive.writestr(f"archive/data/{key}", data)
    return path


def assert_same(tensors, expected):
    assert list(tensors) == list(expected)
    for name, array in tensors.items():
        assert array.dtype == expected[name].dtype and array.shape == expected[name].shape
        assert array.flags.c_contiguous and array.flags.owndata and array.flags.writeable
        np.testing.assert_array_equal(array, expected[name])


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


class Evil:
    """What a call of it does, the marker file tells."""

    def __init__(self, function, *args):
        self.reduced = (function, args)

    def __reduce__(self):
        return self.reduced


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _hostile(marker) -> dict[str, tuple[bytes, str]]:
    """Pickles that make the file `marker` when they are unpickled, and what they ask for."""
    shell, code = f"touch {marker}", f"open({str(marker)!r}, 'w').close()"
    system = f"{os.system.__module__}.system"
    arg = b"(" + _text(shell) + b"t"
    stack_global = _text("os") + _text("system") + b"\x93"
    by_module = b"cos\nsystem\n"
    # An object whose class is found first, so that the machine must refuse at the call itself.
    stand_in = b"cmodels.evil\nrun\n"
    torch_path = b"ctorch.nn.modules.os\nsystem\n"
    return {
        "system": (pickle.dumps(Evil(os.system, shell)), system),
        "system, protocol 0": (pickle.dumps(Evil(os.system, shell), 0), system),
        "system, protocol 2": (pickle.dumps(Evil(os.system, shell), 2), system),
        "exec": (pickle.dumps(Evil(exec, code)), "builtins.exec"),
        "eval": (pickle.dumps(Evil(eval, code), 2), "__builtin__.eval"),
        "open": (pickle.dumps(Evil(open, str(marker), "w")), "open"),
        "import": (pickle.dumps(Evil(__import__, "os")), "builtins.__import__"),
        "getattr": (pickle.dumps(Evil(getattr, Evil(__import__, "os"), "system")), "getattr"),
        "attrgetter": (b"coperator\nattrgetter\n" + arg + b"R.", "operator.attrgetter"),
        "partial": (b"cfunctools\npartial\n(cos\nsystem\n" + arg + b"tR.", "functools.partial"),
        "GLOBAL": (by_module + arg + b"R.", "os.system"),
        "GLOBAL, posix": (b"cposix\nsystem\n" + arg + b"R.", "posix.system"),
        "GLOBAL, nt": (b"cnt\nsystem\n" + arg + b"R.", "nt.system"),
        "GLOBAL, Python 2": (b"ccommands\ngetoutput\n" + arg + b"R.", "commands.getoutput"),
        "GLOBAL, numpy": (b"cnumpy\nload\n" + arg + b"R.", "numpy.load"),
        "GLOBAL, torch": (b"ctorch\nload\n" + arg + b"R.", "torch.load"),
        "GLOBAL, torch's own os": (b"ctorch.serialization\nos.system\n" + arg + b"R.", "os.system"),
        "STACK_GLOBAL": (b"\x80\x04" + stack_global + arg + b"R.", "os.system"),
        "INST": (b"(" + _text(shell) + b"ios\nsystem\n.", "os.system"),
        "OBJ": (b"(" + by_module + _text(shell) + b"o.", "os.system"),
        "NEWOBJ": (b"csubprocess\nPopen\n(](" + _text("touch") + _text(str(marker)) + b"et\x81.",
                   "subprocess.Popen"),
        "NEWOBJ_EX": (b"csubprocess\nPopen\n)}" + _text("args") + _text(shell) + b"s\x92.",
                      "subprocess.Popen"),
        "call of a stand-in": (stand_in + arg + b"R.", "models.evil.run"),
        "call of a stand-in in torch.nn": (torch_path + arg + b"R.", "torch.nn.modules.os.system"),
        "INST of a stand-in": (b"(" + _text(shell) + b"imodels.evil\nrun\n.", "models.evil.run"),
        "OBJ of a stand-in": (b"(" + stand_in + _text(shell) + b"o.", "models.evil.run"),
        "NEWOBJ of a stand-in": (stand_in + arg + b"\x81.", "models.evil.run"),
        "NEWOBJ_EX of a stand-in": (stand_in + b")}" + _text("a") + _text("b") + b"s\x92.",
                                    "models.evil.run"),
        "_reconstructor": (b"ccopy_reg\n_reconstructor\n(cos\nsystem\nc__builtin__\nobject\nNtR.",
                           "os.system"),
        "_reconstructor of a builtin": (
            b"ccopy_reg\n_reconstructor\n(ccollections\nOrderedDict\nc__builtin__\nobject\nNtR.",
            "collections.OrderedDict"),
        "module": (b"(" + _text("module") + by_module + b"NNtQ.", "os.system"),
        "storage": (b"(" + _text("storage") + stand_in + _text("0") + _text("cpu") + b"K\x01tQ.",
                    "models.evil.run"),
        "EXT": (b"\x82\xf0" + arg + b"R.", "EXT1"),
        "BUILD with __setstate__": (
            stand_in + b")\x81}" + _text("__setstate__") + by_module + b"sb" + _text(shell) + b"b.",
            "os.system"),
        "__reduce__ of a name with line breaks": (
            b"\x80\x04" + _text("models\nos") + _text("system") + b"\x93" + arg + b"R.", "system"),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("case", _hostile("x"))
def test_hostile_pickles_are_refused_by_name(tmp_path, kind, case):
    marker, path = tmp_path / "marker", tmp_path / "a.pth"
    code, name = _hostile(marker)[case]
    if kind == "zip":
        in_zip(path, code)
    else:
        path.write_bytes(pickled(0x1950A86A20F9469CFC6C) + pickled(1001) + code)
        if case != "system":  # And as the first of all, without any of torch's pickles.
            path.write_bytes(code)
    with pytest.raises(InputError) as caught:
        read_torch(path)
    assert not marker.exists()
    assert name in str(caught.value)


@pytest.mark.parametrize("case", ["system", "exec", "eval", "GLOBAL", "INST", "OBJ"])
def test_the_hostile_pickles_would_do_harm(tmp_path, case):
    # Otherwise the test above would pass with any reader.
    marker = tmp_path / "marker"
    pickle.loads(_hostile(marker)[case][0])
    assert marker.exists()


def test_extension_codes_are_not_looked_up(tmp_path):
    import copyreg

    marker = tmp_path / "marker"
    copyreg.add_extension("posix", "system", 0xF0)
    try:
        with pytest.raises(InputError, match="EXT1"):
            read_torch(in_zip(tmp_path / "a.pth", _hostile(marker)["EXT"][0]))
    finally:
        copyreg.remove_extension("posix", "system", 0xF0)
    assert not marker.exists()


def test_attributes_are_only_stored(tmp_path):
    file = File()
    conv = module(CONV, [("weight", file.tensor(KERNEL))])
    evil = {"__class__": "x", "__setstate__": "y", "__dict__": {"cls": 3}, "cls": 4, "state": 5}
    conv.state |= evil
    ordered = Call(Name("collections", "OrderedDict"), (), {"clear": 1, "items": 2, "_metadata": 3})
    file.save(tmp_path / "a.pth", {"net": New(Name("models", "A.B"), {"_modules": {"c": conv}}),
                                   "o": ordered})  # fmt: skip
    assert_same(read_torch(tmp_path / "a.pth").tensors, {"c.weight": KERNEL})


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (b"]" * 1_100_000 + b".", "more than 1000000 steps"),
        (b"]" * 200_000 + b"a" * 199_999 + b".", "no tensors"),
        (b"(" * 200_000 + b"t" * 199_999 + b".", "damaged|no tensors"),
        (b"r\xff\xff\xff\xff.", "stack"),
        (b"]r\xff\xff\xff\xff.", "no tensors"),
        (b"\x8b\xff\xff\xff\x7f1.", "not enough"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f1.", "bytes"),
        (b"X\xff\xff\xff\xffab.", "bytes"),
        (b"2" * 10 + b".", "DUP"),
        (b"}N(tK\x01s.", "no tensors|damaged|type"),
        (b"})\x85\x85\x85K\x01s.", "key of type tuple"),
        (b"K\x05K\x06b.", "attributes"),
        (b"h\x07.", "damaged"),
        (b"0.", "stack"),
        (b"(K\x01\x85R.", "stack|damaged|function"),
        (b"\xff.", "unknown"),
        (b"K\x01", "exhausted"),
        (b"ccollections\nOrderedDict\n(K\x01tR.", "damaged"),
        (b"L" + b"9" * 5000 + b"L\n.", "no tensors|digits|4300"),
    ],
)
def test_damaged_and_oversized_pickles(tmp_path, code, words):
    with pytest.raises(InputError, match=words):
        read_torch(in_zip(tmp_path / "a.pth", code))


def test_copying_calls_cost_steps(tmp_path):
    # 100 kB that would make 100 million entries.
    pairs = b"](" + b"K\x01K\x02\x86" * 10_000 + b"eq\x00"
    code = pairs + b"0ccollections\nOrderedDict\nq\x010" + b"h\x01h\x00\x85R" * 10_000 + b"."
    with pytest.raises(InputError, match="steps"):
        read_torch(in_zip(tmp_path / "a.pth", code))


def test_shared_and_cyclic_modules(tmp_path):
    cls = b"cmodels\nNet\n)\x81"
    # Each of 60 modules has the last one twice: 2^60 names.
    code = cls + b"q\x00"
    for index in range(60):
        children = _text("a") + b"h" + bytes([index]) + _text("b") + b"h" + bytes([index])
        code += cls + b"}" + _text("_modules") + b"}(" + children + b"usbq" + bytes([index + 1])
    with pytest.raises(InputError, match="more than 100000 modules"):
        read_torch(in_zip(tmp_path / "a.pth", code + b"."))
    cyclic = cls + b"q\x00}" + _text("_modules") + b"}" + _text("a") + b"h\x00ssb."
    with pytest.raises(InputError, match="nested more than 100 deep"):
        read_torch(in_zip(tmp_path / "a.pth", cyclic))


class TestMemory:
    """Files that ask for far more memory than they have bytes are refused before it is taken."""

    def refuse(self, path, words):
        tracemalloc.start()
        with pytest.raises(InputError, match=words):
            read_torch(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40e6

    def test_expanded_view(self, tmp_path):
        file = File()
        storage = file.store(np.zeros(1, np.float32))
        file.save(tmp_path / "a.pth", {"x": file.view(storage, 0, (10**6, 10**6), (0, 0))})
        self.refuse(tmp_path / "a.pth", "tensors would need 4000000000000")

    def test_many_expanded_views(self, tmp_path):
        file = File()
        storage = file.store(np.zeros(1, np.float32))
        views = {f"x{i}": file.view(storage, 0, (10**6,), (0,)) for i in range(300)}
        file.save(tmp_path / "a.pth", views)
        self.refuse(tmp_path / "a.pth", "tensors would need 1200000000")

    @pytest.mark.parametrize("legacy", [True, False])
    def test_storage_longer_than_the_file(self, tmp_path, legacy):
        file = File(legacy=legacy)
        path = tmp_path / "a.pth"
        storage = file.store(np.zeros(4, np.float32))
        view = file.view(storage, 0, (4,), (1,))
        pid = view.args[0].pid
        pid = (*pid[:4], 10**12, *pid[5:])
        file.save(path, {"x": Call(view.function, (Persistent(pid), *view.args[1:]))})
        self.refuse(path, "not as long as the tensors say")
        if legacy:  # The count beside the elements may lie too.
            content = path.read_bytes()
            path.write_bytes(content[:-24] + struct.pack("<q", 10**12) + content[-16:])
            self.refuse(path, "ends within storage")

    @pytest.mark.parametrize("name", ["archive/data/0", "archive/data.pkl", "archive/other"])
    def test_zip_bomb(self, tmp_path, name):
        path = saved(tmp_path / "a.pth")
        with zipfile.ZipFile(path) as old:
            entries = {entry: old.read(entry) for entry in old.namelist()}
        entries[name] = bytes(100_000_000)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            for entry, data in entries.items():
                new.writestr(entry, data)
        del entries
        self.refuse(path, "would unpack to 100")

    def test_zip_bomb_that_lies_about_its_size(self, tmp_path):
        path = in_zip(tmp_path / "a.pth", b"")
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
            new.writestr("archive/data.pkl", bytes(100_000_000))
        content = path.read_bytes().replace(struct.pack("<I", 100_000_000), struct.pack("<I", 50))
        path.write_bytes(content)
        self.refuse(path, "damaged")


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
        (pickle.dumps({"a": 1}), "a pickle, but not one of torch.save"),
        (pickle.dumps([[[]]]), "a pickle, but not one of torch.save"),
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


def test_other_zip_archives(tmp_path):
    np.savez(tmp_path / "a.npz", x=KERNEL)
    with pytest.raises(InputError, match="without the 'data.pkl'"):
        read_torch(tmp_path / "a.npz")
    with zipfile.ZipFile(saved(tmp_path / "a.pth"), "a") as archive:
        archive.writestr("archive/constants.pkl", b"")
    with pytest.raises(InputError, match="torch.jit.load"):
        read_torch(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("root", "words"),
    [
        ({"epoch": 3}, "no tensors by name"),
        ({"state_dict": {}}, "no tensors by name"),
        ([1, 2], "no tensors by name"),
        ({"x": Call(Name("torch._utils", "_rebuild_qtensor"), (1,))}, "tensor 'x' is quantised"),
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


class TestRealTorch:
    @pytest.fixture
    def torch(self):
        return pytest.importorskip("torch")

    @pytest.mark.parametrize("is_zip", [True, False])
    def test_types_and_views(self, tmp_path, torch, is_zip):
        torch.manual_seed(0)
        base = torch.randn(6, 8)
        state = OrderedDict(
            half=torch.randn(3).half(),
            brain=torch.randn(2, 2).bfloat16(),
            long=torch.tensor(2**40),
            flags=torch.tensor([True, False]),
            odd=torch.randn(2, 3, dtype=torch.complex64),
            small=torch.tensor([1, 65535], dtype=torch.uint16),
            transposed=base.T,
            part=base[2:5, ::3],
            expanded=torch.ones(1).expand(4, 5),
            none=torch.zeros(0, 3),
            parameter=torch.nn.Parameter(torch.randn(4)),
        )
        if not is_zip:
            del state["small"]  # torch.save refuses it there.
        options = {"_use_new_zipfile_serialization": is_zip}
        torch.save(state, tmp_path / "a.pth", **options)
        brain = state["brain"].float().numpy().astype(ml_dtypes.bfloat16)
        expected = {n: x.detach().numpy() for n, x in state.items() if n != "brain"}
        expected = {name: brain if name == "brain" else expected[name] for name in state}
        assert_same(read_torch(tmp_path / "a.pth").tensors, expected)

    @pytest.mark.parametrize("is_zip", [True, False])
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_whole_module_in_data_parallel(self, tmp_path, torch, is_zip, protocol):
        nn = torch.nn
        block = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
        net = nn.Sequential(block, nn.Linear(4, 2))
        net[1].weight = nn.Parameter(net[1].weight.detach().clone())
        net.register_buffer("temporary", torch.ones(2), persistent=False)
        root = {"net": nn.DataParallel(net), "acc": torch.tensor(93.25), "epoch": 7}
        optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 2])
        root |= {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        options = {"_use_new_zipfile_serialization": is_zip, "pickle_protocol": protocol}
        torch.save(root, tmp_path / "a.t7", **options)
        file = read_torch(tmp_path / "a.t7")
        assert_same(file.tensors, {name: x.numpy() for name, x in net.state_dict().items()})
        assert file.metadata == {"acc": 93.25, "epoch": 7}

    @pytest.mark.filterwarnings("ignore::UserWarning")  # Some kinds are prototypes.
    def test_other_tensors_are_refused_by_name(self, tmp_path, torch):
        kinds = {
            "quantised": torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
            "sparse": torch.eye(3).to_sparse(),
            "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
            "without data": torch.ones(2, device="meta"),
            "conjugated": torch.ones(2, dtype=torch.complex64).conj(),
        }
        for kind, tensor in kinds.items():
            torch.save({"a.weight": tensor}, tmp_path / "a.pth")
            with pytest.raises(InputError, match=f"tensor 'a.weight' is .*{kind}"):
                read_torch(tmp_path / "a.pth")

    def test_torch_reads_what_the_helpers_write(self, tmp_path, torch):
        # Otherwise the tests without torch would test a format of our own.
        for options in ({}, {"legacy": True}):
            path = saved(tmp_path / "a.pth", **options)
            theirs = torch.load(path, weights_only=True)
            ours = read_torch(path).tensors
            assert_same(ours, {name: x.numpy() for name, x in theirs.items()})
        stream = io.BytesIO(saved(tmp_path / "a.t7", legacy=True, python2=True).read_bytes())
        theirs = torch.load(stream, weights_only=False, encoding="latin1")
        np.testing.assert_array_equal(theirs["conv.weight"].numpy(), KERNEL)
