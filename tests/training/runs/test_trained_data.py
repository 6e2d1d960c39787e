"""Runs know the examples and the classes that they learn from."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

from shift_jax.errors import InputError
from shift_jax.training import train as train_module
from shift_jax.training.evaluation import TrainedModel, evaluate_and_report
from shift_jax.training.processes.stopping import StoppedError
from shift_jax.training.runs.checkpoint_files import read_manifest, update_manifest
from shift_jax.training.runs.import_weights import export_safetensors, import_weights
from shift_jax.training.runs.selection import checkpoint_of
from shift_jax.training.runs.trained_data import learned_class_names
from shift_jax.training.train import train

RNG = np.random.default_rng(0)


def draw(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def photos(folder, names=("cat", "dog", "owl")):
    for split, count in (("train", 4), ("test", 2)):
        for name in names:
            for index in range(count):
                draw(folder / split / name / f"{index}.png")
    return folder


@pytest.fixture
def config(tiny_config, tmp_path):
    tiny_config.data.name, tiny_config.data.image_size = "folder", 8
    tiny_config.data.data_dir = str(photos(tmp_path / "photos"))
    tiny_config.data.mean, tiny_config.data.std = (0.5,) * 3, (0.25,) * 3
    tiny_config.data.pad = 0
    tiny_config.batch_size, tiny_config.eval_batch_size = 6, 6
    return tiny_config


def resume(config, tmp_path, **arguments):
    return train(config, tmp_path / "run", devices=jax.devices()[:1], **arguments)


@pytest.fixture
def stopped(config, tmp_path):
    """A run that was stopped after three of its four steps."""
    with pytest.raises(StoppedError):
        resume(config, tmp_path, should_stop=lambda step: step == 3)
    return tmp_path / "run"


def test_other_classes_end_a_run(config, stopped, tmp_path):
    for split in ("train", "test"):
        (tmp_path / "photos" / split / "dog").rename(tmp_path / "photos" / split / "zzz")
    before = sorted(stopped.rglob("*"))
    with pytest.raises(InputError, match=r"run began with: 'dog' is missing and 'zzz' is new; res"):
        resume(config, tmp_path)
    with pytest.raises(InputError, match="'dog' is missing"):
        resume(config, tmp_path, allow_changed_data=True)
    assert sorted(stopped.rglob("*")) == before


def test_more_examples_need_a_flag(config, stopped, tmp_path):
    draw(tmp_path / "photos" / "train" / "cat" / "new.png")
    with pytest.raises(InputError, match="12 examples there and 13 here.*--allow_changed_data"):
        resume(config, tmp_path)
    resume(config, tmp_path, allow_changed_data=True)
    assert json.loads((stopped / "data.json").read_text())["num_examples"] == 13
    (tmp_path / "photos" / "train" / "cat" / "new.png").unlink()
    with pytest.raises(InputError, match="13 examples there and 12 here"):
        resume(config, tmp_path, allow_changed_data=True)


def test_a_changed_file_is_another_dataset(config, stopped, tmp_path):
    path = tmp_path / "photos" / "train" / "cat" / "0.png"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputError, match="names or sizes of some files"):
        resume(config, tmp_path)


def test_a_moved_folder_is_the_same_dataset(config, stopped, tmp_path):
    shutil.move(tmp_path / "photos", tmp_path / "moved")
    config.data.data_dir = str(tmp_path / "moved")
    resume(config, tmp_path)
    manifest = read_manifest(checkpoint_of(stopped, "latest"))
    assert manifest["training"]["data"]["class_names"] == ["cat", "dog", "owl"]


def test_a_damaged_record(config, stopped, tmp_path):
    (stopped / "data.json").write_text("{}")
    with pytest.raises(InputError, match="data.json is damaged .* or delete it"):
        resume(config, tmp_path)


def test_a_run_of_before_goes_on(config, stopped, tmp_path):
    (stopped / "data.json").unlink()
    resume(config, tmp_path)
    assert json.loads((stopped / "data.json").read_text())["num_examples"] == 12


def test_evaluation_is_of_the_classes_that_the_run_learned(config, stopped, tmp_path, caplog):
    other = photos(tmp_path / "other", ("cat", "fox", "owl"))
    with pytest.raises(InputError, match="'dog' is missing and 'fox' is new.*--allow_subset"):
        evaluate_and_report(workdir=stopped, data_dir=other)
    shutil.rmtree(other / "train")  # The classes of the network are those that it learned.
    shutil.copytree(
        tmp_path / "photos" / "test" / "owl", other / "test" / "owl", dirs_exist_ok=True
    )
    shutil.rmtree(other / "test" / "cat")
    found = evaluate_and_report(workdir=stopped, data_dir=other, allow_subset=True)
    assert found["examples"] == 2

    trained = TrainedModel(checkpoint_of(stopped, "latest"))
    mine = trained.task.source("test")
    owls = [mine[index]["image"] for index in (4, 5)]
    logits = np.asarray(trained.task.logits(trained.variables, np.stack(owls)))
    assert found["top1"] == (logits.argmax(-1) == 2).mean()
    assert not caplog.records


def test_evaluation_of_a_run_of_before(stopped, tmp_path, caplog):
    checkpoint = checkpoint_of(stopped, "latest")
    training = read_manifest(checkpoint)["training"]
    del training["data"]
    update_manifest(checkpoint, training=training)
    assert learned_class_names({}) is None
    assert evaluate_and_report(workdir=stopped)["examples"] == 6
    assert "Nothing says which classes the network learned" in caplog.text
    four = photos(tmp_path / "four", ("a", "b", "c", "d"))
    with pytest.raises(InputError, match="tells 3 classes apart, but 'test' has 4: name"):
        evaluate_and_report(workdir=stopped, data_dir=four)


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ("shiftresnet20.digits", "tells 10 classes apart, but 'test' has 3: name"),
        ("shiftresnet20-3.cifar100", "are missing and 'cat', 'dog', 'owl' are new; .*--allow_sub"),
    ],
)
def test_shipped_weights_know_their_classes(weights, sentence, tmp_path):
    folder = photos(tmp_path / "photos")
    with pytest.raises(InputError, match=sentence):
        evaluate_and_report(
            weights=weights,
            data_dir=folder,
            overrides={"data.name": "folder", "data.image_size": 32},
            output=tmp_path / "metrics.json",
        )
    assert not (tmp_path / "metrics.json").exists()


def test_all_processes_have_the_same_examples(config, tmp_path, monkeypatch):
    def check_same(value, sentence):
        if value.get("num_examples") == 12:  # Another process has more.
            raise InputError(sentence.format(process=1))

    monkeypatch.setattr(train_module, "check_same", check_same)
    with pytest.raises(InputError, match="Process 1 reads other training data than process 0"):
        resume(config, tmp_path)
    assert not (tmp_path / "run").exists()


def test_exported_weights_know_their_classes(stopped, tmp_path):
    export_safetensors(tmp_path / "x.safetensors", workdir=str(stopped))
    import_weights(tmp_path / "x.safetensors", tmp_path / "again")
    other = photos(tmp_path / "other", ("cat", "fox", "owl"))
    with pytest.raises(InputError, match="'dog' is missing and 'fox' is new"):
        evaluate_and_report(workdir=tmp_path / "again", data_dir=other)
