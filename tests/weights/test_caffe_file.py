import re
import tracemalloc

import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.weights.caffe_file import is_caffe, read_caffe
from shift_jax.weights.formats import format_of
from tests.weights.caffe_files import blob, field, layer, network, varint

RNG = np.random.default_rng(0)
KERNEL = RNG.normal(size=(2, 3, 1, 1)).astype(np.float32)
BIAS = RNG.normal(size=2).astype(np.float32)


def read(tmp_path, content):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    return read_caffe(path)


def refusal(tmp_path, content):
    with pytest.raises(InputError) as refused:
        read(tmp_path, content)
    sentence = str(refused.value)
    assert sentence.startswith(str(tmp_path)) and sentence.count("\n") == 0
    return sentence


def test_blobs_by_layer(tmp_path):
    found = read(tmp_path, network({"conv/a:0": KERNEL, "conv/a:1": BIAS, "fc:0": KERNEL[:, 0]}))
    assert list(found) == ["conv/a:0", "conv/a:1", "fc:0"]
    for name, expected in zip(found, (KERNEL, BIAS, KERNEL[:, 0]), strict=True):
        assert found[name].dtype == np.float32 and found[name].flags.writeable
        np.testing.assert_array_equal(found[name], expected)


def test_a_file_that_protobuf_wrote(tmp_path):
    message = pytest.importorskip("google.protobuf.descriptor_pb2")
    from google.protobuf import descriptor_pool, message_factory

    # The part of caffe.proto that matters, with fields to skip.
    file = message.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    kind = message.FieldDescriptorProto
    for name, fields in {
        "BlobShape": [("dim", 1, kind.TYPE_INT64, True)],
        "BlobProto": [
            ("num", 1, kind.TYPE_INT32, False),
            ("channels", 2, kind.TYPE_INT32, False),
            ("height", 3, kind.TYPE_INT32, False),
            ("width", 4, kind.TYPE_INT32, False),
            ("data", 5, kind.TYPE_FLOAT, True),
            ("shape", 7, "BlobShape", False),
            ("double_data", 8, kind.TYPE_DOUBLE, True),
        ],
        "LayerParameter": [
            ("name", 1, kind.TYPE_STRING, False),
            ("type", 2, kind.TYPE_STRING, False),
            ("bottom", 3, kind.TYPE_STRING, "repeated"),
            ("loss_weight", 5, kind.TYPE_FLOAT, "repeated"),
            ("blobs", 7, "BlobProto", "repeated"),
            ("phase", 10, kind.TYPE_INT32, False),
        ],
        "NetParameter": [
            ("name", 1, kind.TYPE_STRING, False),
            ("force_backward", 5, kind.TYPE_BOOL, False),
            ("layer", 100, "LayerParameter", "repeated"),
        ],
    }.items():
        described = file.message_type.add(name=name)
        for field_name, number, of, repeated in fields:
            added = described.field.add(
                name=field_name,
                number=number,
                label=kind.LABEL_REPEATED if repeated else kind.LABEL_OPTIONAL,
            )
            if isinstance(of, str):
                added.type, added.type_name = kind.TYPE_MESSAGE, f".caffe.{of}"
            else:
                added.type = of
            added.options.packed = repeated is True
            if repeated is not True:
                added.ClearField("options")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    net = message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))()
    net.name, net.force_backward = "a net", True
    net.layer.add(name="data", type="Data", phase=1)
    conv = net.layer.add(name="conv1", type="Convolution", bottom=["data"], loss_weight=[0.5, 1.5])
    conv.blobs.add(data=KERNEL.ravel()).shape.dim.extend(KERNEL.shape)
    conv.blobs.add(data=BIAS, num=1, channels=1, height=1, width=2)
    scalar = net.layer.add(name="scale", type="Scale")
    scalar.blobs.add(double_data=[2.5]).shape.SetInParent()
    found = read(tmp_path, net.SerializeToString())
    np.testing.assert_array_equal(found["conv1:0"], KERNEL)
    np.testing.assert_array_equal(found["conv1:1"], BIAS[None, None, None])
    assert found["scale:0"] == 2.5 and found["scale:0"].dtype == np.float64
    assert format_of(tmp_path / "net.caffemodel") == "caffe"


@pytest.mark.parametrize(
    "start", [field(1, b""), field(1, b"ResNet-50"), b"", field(1, b"x") + field(5, 0)]
)
def test_files_are_recognized_by_their_first_bytes(start):
    assert is_caffe((start + layer("a", blob(BIAS)))[:512])


@pytest.mark.parametrize(
    "start", [b"", b"\x80\x02\x8a\nl\xfc", b"PK\x03\x04", b"\x0a\x05helloworld", b"\n\n\n\n\n"]
)
def test_other_files_are_not_recognized(start):
    assert not is_caffe(start)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "it holds no weights"),
        (field(1, b"net") + layer("a"), "it holds no weights"),
        (b"\xff" * 30, "it ends early, or is no protocol buffer"),
        (field(100, b"\x80"), "it ends early, or is no protocol buffer"),
        (field(1, b"net") + b"\x0b", "a field of the unknown kind 3"),
        (field(100, 7), "a layer is a number"),
        (field(100, field(7, 7)), "a blob is a number"),
        (field(100, field(1, 7)), "the name of a layer is a number"),
        (field(100, field(1, b"a" * 2000)), "a layer has a name of 2000 bytes"),
        (field(100, field(1, b"\xff")), "can't decode byte 0xff"),
        (field(2, field(4, b"conv")), "those of Caffe before 2014"),
        (layer("a", field(5, bytes(8))), "has no shape, or no numbers"),
        (layer("a", field(7, field(1, b"\x02"))), "has no shape, or no numbers"),
        (layer("a", field(7, field(1, b"\x01")) + field(5, 1)), "data of layer 'a' is a number"),
        (layer("a", blob(BIAS) + field(8, bytes(8))), "or two kinds of them"),
        (layer("a", blob(BIAS, shape=(3,))), "has 8 bytes, and the shape [3]"),
        (layer("a", blob(BIAS, shape=(1 << 40, 1 << 40))), "has 8 bytes, and the shape"),
        (layer("a", blob(BIAS, shape=(1 << 63, 2))), "has 8 bytes, and the shape"),
        (layer("a", blob(BIAS, shape=(1,) * 33)), "more than 32 dimensions"),
        (layer("a", blob(BIAS)) * 2, "the layer 'a' twice"),
        (field(100, field(1, b"a") + varint(7 << 3 | 2) + varint(1 << 60)), "it ends early"),
        (field(1, b"net") + b"\x28\x00" * 300_000, "more than 200,000 fields"),
        (layer("a", field(7, field(1, b"\x01" * 400_000))), "more than 32 dimensions"),
    ],
)
def test_hostile_files(content, sentence, tmp_path):
    assert sentence in refusal(tmp_path, content)


def test_nesting_has_no_end(tmp_path):
    """A message whose every part may be read as another message of the same kind."""
    inside = b""
    for _ in range(20_000):
        inside = field(100, inside)
    tracemalloc.start()
    assert "it holds no weights" in refusal(tmp_path, field(1, b"net") + inside)
    assert tracemalloc.get_traced_memory()[1] < 10 * len(inside) + (1 << 20)
    tracemalloc.stop()


def test_missing_files(tmp_path):
    with pytest.raises(InputError, match="cannot be read .No such file"):
        read_caffe(tmp_path / "no.caffemodel")
    with pytest.raises(InputError, match="cannot be read .Is a directory"):
        read_caffe(tmp_path)


def test_truncated_and_flipped_files_are_told_in_one_sentence(tmp_path):
    content = network({"conv0:0": KERNEL, "bn:0": BIAS, "fc/linear:0": KERNEL[:, 0]})
    rng = np.random.default_rng(1)
    told = set()
    for case in range(400):
        damaged = bytearray(content)
        if case < len(content):
            damaged = damaged[:case]
        else:
            for _ in range(int(rng.integers(1, 5))):
                damaged[rng.integers(len(damaged))] = rng.integers(256)
        try:
            read(tmp_path, bytes(damaged))
        except InputError as error:
            told.add(re.search(r"weights: \D{0,20}", str(error))[0])
    assert len(told) >= 5
