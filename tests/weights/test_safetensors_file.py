"""Variables survive safetensors files; damage and mistakes are told in a sentence."""

import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.weights import safetensors_file
from shift_jax.weights.safetensors_file import read_safetensors, sha256, write_safetensors

library = pytest.importorskip("safetensors.numpy")

VARIABLES = {
    "params": {
        "stem": {"kernel": np.arange(12, dtype=np.float32).reshape(3, 4).T},
        "half": np.float16([1, 2]),
        "brain": np.array([[1.5, -2]], ml_dtypes.bfloat16),
        "scalar": np.array(7, np.int64),
        "none": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "other_order": np.array([1, 2], ">f4"),
    },
    "batch_stats": {"stem": {"mean": np.zeros(3, np.uint8)}},
}
METADATA = {"model": "shiftnet_c", "license": "Apache-2.0", "é": 'quotes " and ü', "empty": ""}


def flat(tree, prefix=""):
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


@pytest.fixture
def path(tmp_path):
    write_safetensors(tmp_path / "a.safetensors", VARIABLES, METADATA)
    return tmp_path / "a.safetensors"


def test_roundtrip(path):
    variables, metadata = read_safetensors(path)
    assert metadata == METADATA
    read, expected = dict(flat(variables)), dict(flat(VARIABLES))
    assert set(read) == set(expected)
    for name, array in read.items():
        assert array.dtype == expected[name].dtype.newbyteorder("=")
        assert array.shape == expected[name].shape
        np.testing.assert_array_equal(array, expected[name])


def test_others_read_it(path):
    with library.safe_open(path, framework="np") as file:
        assert "params/stem/kernel" in file.keys()  # noqa: SIM118
        array = file.get_tensor("params/stem/kernel")
    np.testing.assert_array_equal(array, VARIABLES["params"]["stem"]["kernel"])


def test_no_metadata_and_names_of_others(tmp_path):
    library.save_file({"conv.weight": np.ones(2, np.float32)}, tmp_path / "a")
    variables, metadata = read_safetensors(tmp_path / "a")
    assert list(variables) == ["conv.weight"] and metadata == {}


def test_same_content_has_the_same_bytes(tmp_path):
    # In processes of their own: the library orders the metadata by a random seed of the process.
    code = (
        "import sys, numpy as np\n"
        "from shift_jax.weights.safetensors_file import sha256, write_safetensors\n"
        "metadata = {str(i): 'x' for i in range(20)}\n"
        "write_safetensors(sys.argv[1], {'p': {'a': np.ones(3), 'b': np.ones(2)}}, metadata)\n"
        "print(sha256(sys.argv[1]))"
    )
    run = [sys.executable, "-c", code, str(tmp_path / "a")]
    sums = {subprocess.run(run, check=True, capture_output=True).stdout for _ in range(3)}
    assert len(sums) == 1


def test_sha256(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # The first example of FIPS 180-2.
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(tmp_path / "a") == expected
    with pytest.raises(InputError, match="No such file"):
        sha256(tmp_path / "b")


def test_writing_is_all_or_nothing(path, monkeypatch):
    before = path.read_bytes()

    def no_space(*args):
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(safetensors_file.os, name, no_space)
            with pytest.raises(InputError, match="No space left"):
                write_safetensors(path, {"params": {"a": np.ones(3)}}, {})
        assert path.read_bytes() == before
        assert os.listdir(path.parent) == [path.name]


def test_new_files_have_the_usual_permissions(path):
    (path.parent / "other").touch()
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode


def test_synchronized_before_it_takes_the_place(path, monkeypatch):
    calls = []
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    for name in real:
        monkeypatch.setattr(
            safetensors_file.os, name, lambda *a, n=name: (calls.append(n), real[n](*a))[1]
        )
    write_safetensors(path, VARIABLES, {})
    assert calls[:2] == ["fsync", "replace"]


@pytest.mark.parametrize(
    ("variables", "metadata", "words"),
    [
        ({"params": {"a/b": np.ones(1)}}, {}, "'a/b' in 'params/'"),
        ({3: np.ones(1)}, {}, "name 3"),
        ({"a": {"": np.ones(1)}}, {}, "name ''"),
        ({"a": np.array(["x"])}, {}, "'a' has type <U1"),
        ({"a": {"b": np.array([None])}}, {}, "'a/b' has type object"),
        ({"a": np.ones(1, complex)}, {}, "'a' has type complex128"),
        ({"params": {}}, {}, "no arrays"),
        ({"a": np.ones(1)}, {"epoch": 3}, "'epoch': 3"),
    ],
)
def test_what_cannot_be_written(tmp_path, variables, metadata, words):
    with pytest.raises(InputError, match=words):
        write_safetensors(tmp_path / "a", variables, metadata)
    assert os.listdir(tmp_path) == []


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        write_safetensors(tmp_path / "missing" / "a", VARIABLES, {})
    with pytest.raises(InputError, match="irectory"):
        write_safetensors(tmp_path, VARIABLES, {})


def test_every_truncation_is_told(path):
    whole = path.read_bytes()
    for length in np.linspace(0, len(whole) - 1, 50).astype(int):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="a.safetensors"):
            read_safetensors(path)


def test_flipped_bits_raise_nothing_else(path):
    whole, random, results = path.read_bytes(), np.random.default_rng(0), []
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[random.integers(len(whole))] = random.integers(256)
        path.write_bytes(damaged)
        try:
            read_safetensors(path)
            results.append(True)
        except InputError:
            results.append(False)
    assert 10 < sum(results) < 290


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
         '"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}', "damaged"),
        ('{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,8]}}', "damaged"),
        ('{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
         '"a/b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', "'a/b' inside or beside"),
        ('{"a/b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
         '"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', "inside or beside"),
        ('{"a":{"dtype":"F4","shape":[4],"data_offsets":[0,2]},'
         '"b":{"dtype":"U8","shape":[6],"data_offsets":[2,8]}}', "damaged"),
    ],
)  # fmt: skip
def test_headers_that_lie(tmp_path, header, words):
    content = len(header).to_bytes(8, "little") + header.encode() + bytes(8)
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InputError, match=words):
        read_safetensors(tmp_path / "a")


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_safetensors(tmp_path / "a")
    with pytest.raises(InputError, match="directory"):
        read_safetensors(tmp_path)


def test_without_the_library(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda: read_safetensors(path), lambda: write_safetensors(path, {}, {})):
        with pytest.raises(InputError, match="pip install safetensors"):
            call()
