import os
import pickle

import numpy as np
import pytest

from shift_jax.data import load_source
from shift_jax.errors import InputError
from shift_jax.training.on_device.arrays import Arrays, load_arrays, save_arrays
from tests.commands.call import call


def fake(classes=10, train=20, test=10, side=8, channels=1):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (train + test, side, side, channels), np.uint8)
    labels = np.arange(train + test, dtype=np.int32)[::-1] % classes
    return Arrays(images[:train], labels[:train], images[train:], labels[train:], classes)


def assert_equal(one, other):
    for field in Arrays._fields:
        a, b = getattr(one, field), getattr(other, field)
        np.testing.assert_array_equal(a, b)
        assert np.asarray(a).dtype == np.asarray(b).dtype, field


def test_digits_are_those_of_the_source_in_order():
    arrays = load_arrays("digits")
    source = load_source("digits", "test")
    assert arrays.test_images.shape == (360, 8, 8, 1) and len(arrays.train_images) == 1437
    assert arrays.num_classes == 10
    for index in (0, 359):
        np.testing.assert_array_equal(arrays.test_images[index], source[index]["image"])
        assert arrays.test_labels[index] == source[index]["label"]


def test_a_file_is_read_as_it_was_written(tmp_path):
    arrays = fake()
    save_arrays(tmp_path / "a.npz", arrays)
    assert_equal(load_arrays("digits", path=tmp_path / "a.npz"), arrays)
    assert os.listdir(tmp_path) == ["a.npz"]
    # NumPy alone makes such a file too.
    wide = arrays._replace(test_labels=arrays.test_labels.astype(np.int64))._asdict()
    np.savez_compressed(tmp_path / "b.npz", **{k: wide[k] for k in Arrays._fields[:4]})
    assert_equal(load_arrays("digits", path=tmp_path / "b.npz"), arrays)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    save_arrays(path, fake())

    def fail(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space"):
        save_arrays(path, fake(train=200))
    assert os.listdir(tmp_path) == ["a.npz"]
    assert_equal(load_arrays("digits", path=path), fake())


def without(field):
    named = fake()._asdict()
    return {key: named[key] for key in Arrays._fields[:4] if key != field}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "is not an .npz file, or damaged"),
        (b"PK\x03\x04 and no more", "is not an .npz file, or damaged"),
        (pickle.dumps({"train_images": 1}), "is not an .npz file, or damaged"),
        ("cut", "is not an .npz file, or damaged"),
        ("flipped", "is not an .npz file, or damaged"),
        ("npy", "is not an .npz file, or damaged"),
        (without("test_labels"), "lacks an array .*test_labels"),
        (fake(classes=9), r"does not hold digits \(labels 0..8 do not make 10 classes\)"),
        (fake(classes=11), "labels 0..10 do not make 10 classes"),
        (fake(side=9), r"train_images is uint8 of shape \(20, 9, 9, 1\), not uint8 with \(8, 8, 1"),
        (fake()._replace(test_labels=np.arange(9) % 10), r"test_images .* for each of 9 labels"),
        (fake()._replace(train_labels=np.linspace(0, 9, 20)), "train_labels is float64 of shape"),
        (fake()._replace(test_images=np.zeros((10, 8, 8, 1))), "test_images is float64"),
    ],
)
def test_bad_files_get_one_sentence(content, sentence, tmp_path):
    path = tmp_path / "bad.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, Arrays):
        named = content._asdict()
        np.savez(path, **{key: named[key] for key in Arrays._fields[:4]})
    elif isinstance(content, dict):
        np.savez(path, **content)
    elif content == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    else:
        save_arrays(path, fake())
        whole = bytearray(path.read_bytes())
        if content == "cut":
            del whole[-40:]
        else:
            whole[whole.index(fake().train_images.tobytes()) + 9] ^= 0xFF
        path.write_bytes(whole)
    with pytest.raises(InputError, match=sentence) as error:
        load_arrays("digits", path=path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_any_flipped_bit_is_one_sentence_or_of_no_effect(tmp_path):
    path = tmp_path / "bad.npz"
    save_arrays(path, fake())
    content = path.read_bytes()
    found = set()
    # Not in the middle of the images, of which one byte is like another.
    images = content.index(fake().train_images.tobytes())
    places = [*range(images), *range(content.index(b"PK\x01\x02"), len(content))]
    for place in places[::11]:
        for bit in (0, 3, 5):
            whole = bytearray(content)
            whole[place] ^= 1 << bit
            path.write_bytes(whole)
            try:
                assert_equal(load_arrays("digits", path=path), fake())
                found.add("as it was")
            except InputError as error:
                found.add("several lines" if "\n" in str(error) else "refused")
    assert found == {"as it was", "refused"}


def test_a_missing_file_and_another_dataset():
    with pytest.raises(InputError, match=r"no file nowhere.npz: write it"):
        load_arrays("cifar100", path="nowhere.npz")
    with pytest.raises(InputError, match=r"^\. cannot be read \(Is a directory\): name another"):
        load_arrays("cifar100", path=".")
    with pytest.raises(InputError, match="dataset is 'cifar', .*Did you mean 'cifar1"):
        load_arrays("cifar")


def test_the_command_writes_the_file(tmp_path, capsys):
    path = tmp_path / "digits.npz"
    call("pack-arrays", ["--dataset=digits", f"--output={path}"])
    assert "1,437 training and 360 test images" in capsys.readouterr().out
    assert_equal(load_arrays("digits", path=path), load_arrays("digits"))
    with pytest.raises(InputError, match="cannot be written .*: name another file"):
        call("pack-arrays", ["--dataset=digits", f"--output={tmp_path / 'none' / 'x.npz'}"])
    for arguments in ([], ["--dataset=digits"], ["digits", "--output=x.npz"]):
        with pytest.raises(InputError, match="Name a dataset and a file"):
            call("pack-arrays", arguments)


@pytest.mark.slow
def test_the_real_cifar100(shared_data, tmp_path):
    arrays = load_arrays("cifar100", data_dir=str(shared_data / "tfds"))
    assert arrays.train_images.shape == (50_000, 32, 32, 3)
    assert arrays.test_images.shape == (10_000, 32, 32, 3)
    assert (np.bincount(arrays.train_labels) == 500).all()
    assert (np.bincount(arrays.test_labels) == 100).all()
    # The documented mean over the training images.
    np.testing.assert_allclose(
        arrays.train_images.mean((0, 1, 2)) / 255, [0.5071, 0.4866, 0.4409], atol=1e-4
    )
    save_arrays(tmp_path / "c.npz", arrays)
    assert_equal(load_arrays("cifar100", path=tmp_path / "c.npz"), arrays)
