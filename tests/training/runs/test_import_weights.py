"""The import as a user runs it, without PyTorch."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from shift_jax import create_model
from shift_jax.errors import InputError
from shift_jax.training.evaluation import evaluate_and_report
from shift_jax.training.runs import import_weights as import_weights_module
from shift_jax.training.runs.checkpoint_files import (
    read_manifest,
    restore_variables,
    update_manifest,
)
from shift_jax.training.runs.import_weights import export_safetensors, import_weights
from shift_jax.training.runs.trained_data import learned_class_names
from shift_jax.weights.safetensors_file import read_safetensors, write_safetensors
from tests.commands.call import call
from tests.conftest import REPOSITORY
from tests.models.small import random_variables, small_model
from tests.weights.photos import real_images
from tests.weights.torch_files import Call, File, Name

FIXTURES = Path(__file__).parents[2] / "weights" / "fixtures"
LOGITS = np.asarray(json.loads((FIXTURES / "shiftresnet20_logits.json").read_text()))


@pytest.fixture
def authors_file(tmp_path):
    """A whole ShiftResNet20-1 as the authors saved theirs."""
    file = tmp_path / "ckpt.t7"
    file.write_bytes(gzip.decompress((FIXTURES / "shiftresnet20.t7.gz").read_bytes()))
    return file


def test_the_authors_file_gives_the_logits_that_pytorch_computed(authors_file, tmp_path):
    imported = import_weights(authors_file, tmp_path / "run", model="shiftresnet20")
    assert imported.remarks == "; the file says 'acc' 91.5, 'epoch' 163"
    variables, config = restore_variables(tmp_path / "run" / "checkpoints" / "0")
    model = create_model("shiftresnet20", num_classes=10)
    logits = jax.jit(model.apply)(variables, real_images(32))
    np.testing.assert_allclose(logits, LOGITS, atol=1e-4)
    assert config["data"]["name"] == "cifar10" and config["model"]["name"] == "shiftresnet20"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ckpt.t7", "run"]


def test_eval_takes_the_import(authors_file, tmp_path):
    # Every class has a black image to train on; tests are photos, as the network sees them.
    images, labels = real_images(32), LOGITS.argmax(-1)
    for index in range(10):
        (tmp_path / "photos" / "train" / str(index)).mkdir(parents=True)
        (tmp_path / "photos" / "test" / str(index)).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(tmp_path / "photos" / "train" / str(index) / "0.png")
    mean, std = np.asarray([0.4914, 0.4822, 0.4465]), np.asarray([0.2023, 0.1994, 0.2010])
    pixels = np.clip((images * std + mean) * 255, 0, 255).round().astype(np.uint8)
    for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        Image.fromarray(image).save(tmp_path / "photos" / "test" / str(label) / f"{index}.png")
    call(
        "import-weights",
        [
            *(str(authors_file), "--model=shiftresnet20", f"--output={tmp_path / 'run'}"),
            *("--dataset=folder", f"--data_dir={tmp_path / 'photos'}"),
        ],
    )
    metrics = evaluate_and_report(workdir=str(tmp_path / "run"))
    assert metrics["examples"] == len(images)
    assert metrics["top1"] == 1.0 and (tmp_path / "run" / "metrics.json").exists()


def test_safetensors_there_and_back(authors_file, tmp_path):
    import_weights(authors_file, tmp_path / "run", model="shiftresnet20")
    export_safetensors(tmp_path / "x.safetensors", workdir=str(tmp_path / "run"))
    import_weights(tmp_path / "x.safetensors", tmp_path / "again")
    (ours, config), (theirs, their_config) = (
        restore_variables(tmp_path / run / "checkpoints" / "0") for run in ("run", "again")
    )
    assert config == their_config
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)

    variables, _ = read_safetensors(tmp_path / "x.safetensors")
    write_safetensors(tmp_path / "bare.safetensors", variables, {})
    with pytest.raises(InputError, match="does not say which network it is of"):
        import_weights(tmp_path / "bare.safetensors", tmp_path / "third")
    import_weights(tmp_path / "bare.safetensors", tmp_path / "third", model="shiftresnet20")
    with pytest.raises(InputError, match="Give either --workdir"):
        export_safetensors(tmp_path / "y.safetensors")

    export_safetensors(
        tmp_path / "half.safetensors", workdir=str(tmp_path / "run"), dtype="bfloat16"
    )
    rounded, _ = read_safetensors(tmp_path / "half.safetensors")
    for leaf, whole in zip(*map(jax.tree.leaves, (rounded, ours)), strict=True):
        assert leaf.dtype == jnp.bfloat16
        np.testing.assert_array_equal(leaf, np.asarray(whole, jnp.bfloat16))
    with pytest.raises(InputError, match="dtype is 'int8', expected 'float32' or"):
        export_safetensors(tmp_path / "y.safetensors", workdir=str(tmp_path / "run"), dtype="int8")


def test_names_of_classes_go_along(authors_file, tmp_path):
    import_weights(authors_file, tmp_path / "run", model="shiftresnet20")
    names = [f"class {index}" for index in range(10)]
    data = {"class_names": names, "num_examples": 50_000, "files": None}
    checkpoint = tmp_path / "run" / "checkpoints" / "0"
    assert learned_class_names(read_manifest(checkpoint)) is None
    update_manifest(checkpoint, training={"data": data})
    export_safetensors(tmp_path / "x.safetensors", workdir=str(tmp_path / "run"))
    imported = import_weights(tmp_path / "x.safetensors", tmp_path / "again")
    assert imported.class_names == tuple(names)
    again = read_manifest(tmp_path / "again" / "checkpoints" / "0")
    assert learned_class_names(again) == tuple(names)

    variables, metadata = read_safetensors(tmp_path / "x.safetensors")
    write_safetensors(tmp_path / "y.safetensors", variables, metadata | {"class_names": '["a"]'})
    with pytest.raises(InputError, match="names 1 classes, and its network has 10"):
        import_weights(tmp_path / "y.safetensors", tmp_path / "no")


def test_a_network_of_1000_classes_learned_those_of_imagenet(tmp_path):
    model = small_model("squeezenet", num_classes=1000)
    file = tmp_path / "x.safetensors"
    write_safetensors(file, random_variables(model, (224, 224, 3)), {})
    for dataset, expected in ((None, ("n01440764", "n15075141")), ("folder", None)):
        output = tmp_path / str(dataset)
        import_weights(file, output, model="squeezenet", dataset=dataset)
        names = learned_class_names(read_manifest(output / "checkpoints" / "0"))
        assert (names and (names[0], names[-1])) == expected


def test_keras_weights_of_vgg(tmp_path):
    model = small_model("vgg16", num_classes=4)
    model = model.clone(convolutions=(2, 2, 3, 3, 3))
    names = {"hidden1": "fc1", "hidden2": "fc2", "classifier": "predictions"}
    tensors = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(
        random_variables(model, (32, 32, 3))["params"]
    ):
        tensors[f"{names.get(path[0].key, path[0].key)}.{path[-1].key}"] = leaf
    np.savez(tmp_path / "vgg.npz", **tensors)
    import_weights(
        tmp_path / "vgg.npz", tmp_path / "run", model="vgg16", arguments={"hidden_features": 8}
    )
    _, config = restore_variables(tmp_path / "run" / "checkpoints" / "0")
    np.testing.assert_allclose(config["data"]["mean"], np.divide((123.68, 116.779, 103.939), 255))
    assert config["data"]["std"] == [1 / 255] * 3
    with pytest.raises(InputError, match="for vgg16 and vgg19 only"):
        import_weights(tmp_path / "vgg.npz", tmp_path / "other", model="resnet50")


def test_vgg19_of_which_there_are_eight_layers_only(shared_data, tmp_path):
    file = shared_data / "weights" / "vgg19_conv1_1_to_conv3_4.npz"
    with pytest.raises(InputError, match="no tensor 'block4_conv1"):
        import_weights(file, tmp_path / "run", model="vgg19")
    assert not list(tmp_path.iterdir())


def test_the_shipped_digits_network_can_be_read_back(tmp_path):
    file = REPOSITORY / "shift_jax" / "weights" / "files" / "shiftresnet20.digits.safetensors"
    imported = import_weights(file, tmp_path / "run")
    assert (imported.num_classes, imported.image_channels) == (10, 1)
    assert evaluate_and_report(workdir=str(tmp_path / "run"))["top1"] == pytest.approx(358 / 360)
    with pytest.raises(InputError, match="says which network .* it is of: leave expansion"):
        import_weights(file, tmp_path / "other", arguments={"expansion": 6})
    moved = import_weights(file, tmp_path / "other", dataset="folder", data_dir="photos")
    _, config = restore_variables(tmp_path / "other" / "checkpoints" / "0")
    assert config["data"]["name"] == "folder" and config["data"]["mean"] == [0.5]
    assert Path(config["data"]["data_dir"]).is_absolute() and moved.model == "shiftresnet20"

    import_weights(file.with_name("shift_style_transformer.mosaic.safetensors"), tmp_path / "style")
    with pytest.raises(InputError, match="eval.py evaluates imported classifiers only"):
        evaluate_and_report(workdir=str(tmp_path / "style"))


@pytest.mark.parametrize(
    "config",
    [
        "{",
        "[]",
        "{}",
        '{"model": 3}',
        '{"model": {}, "data": {}}',
        '{"model": {"name": ["x"]}, "data": {}}',
        '{"model": {"name": "shiftresnet20", "expansion": "x"}, "data": {}}',
    ],
)
def test_safetensors_that_say_nonsense_of_themselves(config, tmp_path):
    variables = {"params": {"classifier": {"bias": np.float32(1)}}}
    write_safetensors(tmp_path / "x.safetensors", variables, {"config": config})
    with pytest.raises(InputError):
        import_weights(tmp_path / "x.safetensors", tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_folder_of_the_same_name_with_partial_is_left_alone(authors_file, tmp_path):
    (tmp_path / "run.partial").mkdir()
    (tmp_path / "run.partial" / "thesis.txt").write_text("mine")
    import_weights(authors_file, tmp_path / "run", model="shiftresnet20")
    assert (tmp_path / "run.partial" / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "run").stat().st_mode & 0o777 == tmp_path.joinpath(
        "run.partial"
    ).stat().st_mode & 0o777


def hostile_file(path, marker):
    File(legacy=True).save(path, Call(Name("posix", "system"), (f"touch {marker}",)))


@pytest.mark.parametrize(
    ("make", "arguments", "sentence"),
    [
        (hostile_file, ["--model=resnet20"], "posix.system"),
        (lambda path, _: None, ["--model=resnet20"], "weights.pth"),
        (lambda path, _: path.write_bytes(b""), ["--model=resnet20"], "weights.pth"),
        (None, [], "give --model"),
        (None, ["--model=shiftresnet21"], "no model named 'shiftresnet21'"),
        (None, ["--model=shiftnet_a"], "No PyTorch layout is known"),
        (None, ["--model=shiftresnet20", "--expansion=3"], "'layer1.0.conv1.weight' has shape"),
        (None, ["--model=resnet20"], "'layer1.0.conv1.weight' has shape"),
        (None, ["--model=shiftresnet56"], "no tensor 'layer1.3.conv1.weight'"),
        (None, ["--model=shiftresnet20", "--shift_order=cuda"], "expected 'interleaved' or"),
        (None, ["--model=shiftresnet20", "--expansoin=3"], "no argument 'expansoin'"),
        (None, ["--model=shiftresnet20", "--expansion"], "'--expansion' has no value"),
        (None, ["--model=shiftresnet20", "--order=interleaved"], "give --shift_order"),
        (None, ["--model=shiftresnet20", "--num_classes=10"], "file has the number of classes"),
    ],
)
def test_refusals_leave_nothing_behind(make, arguments, sentence, authors_file, tmp_path):
    file, marker = authors_file, tmp_path / "executed"
    if make:
        file = tmp_path / "weights.pth"
        make(file, marker)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=sentence):
        call("import-weights", [str(file), f"--output={tmp_path / 'run'}", *arguments])
    assert sorted(tmp_path.iterdir()) == before and not marker.exists()


def test_the_output_folder_must_be_new(authors_file, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="already exists"):
        import_weights(authors_file, tmp_path / "run", model="shiftresnet20")
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_the_command_says_one_sentence_and_fails(tmp_path):
    command = [sys.executable, "-m", "shift_jax.commands.import_weights", str(tmp_path / "no.pth")]
    result = subprocess.run(
        [*command, "--model=resnet20", f"--output={tmp_path / 'run'}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing_behind(authors_file, tmp_path, monkeypatch):
    def save(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(import_weights_module.Checkpoints, "save", save)
    with pytest.raises(InputError, match=r"run cannot be written \(No space left on device\)"):
        import_weights(authors_file, tmp_path / "run", model="shiftresnet20")
    assert list(tmp_path.iterdir()) == [authors_file]
