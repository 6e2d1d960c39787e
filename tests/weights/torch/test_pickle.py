"""Nothing in a pickle is ever run, and damaged ones are refused."""

import os
import pickle
import struct

import pytest

from shift_jax.errors import InputError
from shift_jax.weights.torch.file import read_torch
from tests.weights.torch_files import (
    KERNEL,
    Call,
    File,
    Name,
    New,
    assert_same,
    in_zip,
    module,
    pickled,
)

CONV = Name("torch.nn.modules.conv", "Conv2d")


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
