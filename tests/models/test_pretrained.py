import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax import load_pretrained
from shift_jax.errors import InputError
from shift_jax.models import model_record
from shift_jax.weights import shipped
from shift_jax.weights.shipped import (
    find_weights,
    list_pretrained,
    shipped_weights,
    weights_named,
)


def test_the_digits_network_has_the_accuracy_of_its_record():
    pytest.importorskip("sklearn")
    from shift_jax.data import load_source

    (record,) = [each for each in model_record("shiftresnet20").weights if each.tag == "digits"]
    model, variables = load_pretrained("shiftresnet20", tag="digits")
    test = load_source("digits", "test")
    images = (test.images / 255 - np.asarray(record.mean)) / np.asarray(record.std)
    logits = jax.jit(model.apply)(variables, images.astype(np.float32))
    assert (np.asarray(logits).argmax(-1) == test.labels).mean() == pytest.approx(record.top1)


def test_records_of_shipped_files():
    assert list_pretrained("shiftresnet*") == [
        "shiftresnet20-3.cifar100",
        "shiftresnet20.digits",
    ]
    for record in shipped_weights():
        assert record.license and record.source and record.trained_on and record.recipe
        if record.num_classes is None:
            assert record.top1 is None and not record.evaluated_on
        else:
            assert 0 < record.top1 <= 1 and record.evaluated_on
        load_pretrained(record.model, record.tag, **record.arguments)
        assert record.path.stat().st_size < 1_200_000
        assert weights_named(record.name) is record


def test_arguments_choose_among_weights_of_one_tag(monkeypatch):
    record = weights_named("shiftresnet20-3.cifar100")
    larger = dataclasses.replace(
        record, name="shiftresnet20-9.cifar100", arguments={"expansion": 9.0}
    )
    monkeypatch.setattr(shipped, "shipped_weights", lambda: (record, larger))
    assert find_weights("shiftresnet20", "cifar100", {"expansion": 9}) is larger
    model, variables = load_pretrained("shiftresnet20", expansion=3, tag="cifar100")
    assert model.num_classes == 100
    assert variables["params"]["group1_block1"]["conv1"]["kernel"].shape == (16, 48)
    with pytest.raises(InputError, match="2 trained weights: choose among .* expansion=9.0"):
        load_pretrained("shiftresnet20", tag="cifar100")


def test_features_of_a_trained_network():
    _, variables = load_pretrained("shiftresnet20", "digits")
    images = jnp.ones((2, 8, 8, 1))
    model, same = load_pretrained("shiftresnet20", "digits", num_classes=0)
    assert jax.eval_shape(model.apply, same, images).shape == (2, 64)
    model, _ = load_pretrained("shiftresnet20", "digits", features_only=True, dtype=jnp.bfloat16)
    maps = jax.eval_shape(model.apply, variables, images)
    assert [each.channels for each in maps] == [16, 16, 32, 64]
    assert maps[-1].array.dtype == jnp.bfloat16
    assert "classifier" in variables["params"] and "classifier" not in same["params"]
    _, rounded = load_pretrained("shiftresnet20", "digits", param_dtype=jnp.bfloat16)
    assert rounded["params"]["stem"]["kernel"].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("shiftresnet21",), "no model named"),
        (("resnet50",), "No trained weights of 'resnet50' come with"),
        (("shiftresnet20", "cifar"), "no weights with the tag 'cifar', only .*digits"),
        (("shiftresnet20",), "trained weights: choose among tag='.*' with expansion="),
        (("shiftresnet20", "digits", 100), "are for 10 classes, not for 100"),
    ],
)
def test_weights_that_do_not_exist(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        load_pretrained(*arguments)


@pytest.mark.parametrize(
    "argument", [{"expansion": 6.5}, {"module": "sc2"}, {"order": "interleaved"}]
)
def test_arguments_that_the_weights_were_not_trained_with(argument):
    ((key, value),) = argument.items()
    sentence = (
        f"no trained weights with {key}={value!r}: choose among tag='digits' with expansion=3.0"
    )
    with pytest.raises(InputError, match=sentence):
        load_pretrained("shiftresnet20", "digits", **argument)


def test_a_damaged_file(tmp_path, monkeypatch):
    record = find_weights("shiftresnet20", "digits")
    content = bytearray(record.path.read_bytes())
    content[-5] ^= 1
    monkeypatch.setattr(shipped, "_FILES", tmp_path)
    with pytest.raises(InputError, match="is missing or is not the shipped file"):
        shipped.read_weights(record)
    (tmp_path / record.path.name).write_bytes(content)
    with pytest.raises(InputError, match="its SHA-256 differs"):
        shipped.read_weights(record)


def test_weights_by_their_own_names():
    assert list_pretrained("shiftresnet20") == list_pretrained("shiftresnet20*")
    assert list_pretrained("resnet20") == []
    model, variables = load_pretrained("shiftresnet20-3.cifar100")
    same, others = load_pretrained("shiftresnet20", tag="cifar100", expansion=3)
    assert model == same
    jax.tree.map(np.testing.assert_array_equal, variables, others)
    with pytest.raises(InputError, match="'shiftresnet20.digit' come .* mean 'shiftresnet20.digi"):
        load_pretrained("shiftresnet20.digit")
    with pytest.raises(InputError, match="no trained weights with expansion=9"):
        load_pretrained("shiftresnet20-3.cifar100", expansion=9)
