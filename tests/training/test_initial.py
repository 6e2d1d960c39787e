import json
import re
import shutil
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from shift_jax import create_model
from shift_jax.config import ClassificationConfig, override, to_dict
from shift_jax.errors import InputError
from shift_jax.training.initial import load_initial, trained_config, with_initial
from shift_jax.training.mesh import make_mesh
from shift_jax.training.runs.checkpoint_files import restore_variables, update_manifest
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.runs.workdir import claim_workdir
from shift_jax.training.step import init_state
from shift_jax.training.train import train
from shift_jax.weights.safetensors_file import write_safetensors
from tests.commands.call import call
from tests.data.photos import write_folder
from tests.models.small import random_variables


def config_of(init_from, **arguments):
    config = ClassificationConfig()
    config.model.name = "tiny"
    config.model.arguments = {"expansion": 1.0, **arguments}
    config.init_from = str(init_from)
    return config


def template(classes=10, **arguments):
    model = create_model("tiny", num_classes=classes, **{"expansion": 1.0, **arguments})
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    return SimpleNamespace(**shapes)


@pytest.fixture(scope="module")
def variables():
    return random_variables(create_model("tiny"), (8, 8, 1))


@pytest.fixture
def run(variables, tmp_path):
    """A run of "tiny" with ten classes."""
    folder, config = tmp_path / "theirs", to_dict(config_of(""))
    claim_workdir(folder, config)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(3, variables, config=config)
    return folder


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def without_classifier(variables):
    params = {k: v for k, v in variables["params"].items() if k != "classifier"}
    return {**variables, "params": params}


def test_runs_checkpoints_and_files(run, variables, tmp_path):
    file = tmp_path / "theirs.safetensors"
    write_safetensors(file, variables, {"config": "{}"})
    for source in (run, run / "checkpoints" / "3", file):
        initial = load_initial(config_of(source), template(), None)
        assert initial.has_classifier
        assert_same(initial.variables, variables)


def test_the_classifier_begins_anew_where_the_classes_differ(run, variables):
    initial = load_initial(config_of(run), template(classes=3), None)
    assert not initial.has_classifier
    assert_same(initial.variables, without_classifier(variables))


def test_the_classifier_begins_anew_for_classes_of_other_names(run, variables):
    checkpoint = run / "checkpoints" / "3"
    names = [f"class {index}" for index in range(10)]
    data = {"class_names": names, "num_examples": 5, "files": None}
    update_manifest(checkpoint, training={"data": data})
    assert load_initial(config_of(run), template(), names).has_classifier
    assert load_initial(config_of(run), template(), None).has_classifier
    initial = load_initial(config_of(run), template(), [*names[1:], names[0]])
    assert not initial.has_classifier
    assert_same(initial.variables, without_classifier(variables))


def test_shipped_weights():
    config = config_of("shiftresnet20.digits")
    config.model.name, config.model.arguments = "shiftresnet20", {"expansion": 3.0}
    model = create_model("shiftresnet20", num_classes=4, expansion=3.0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    initial = load_initial(config, SimpleNamespace(**shapes), None)
    assert not initial.has_classifier
    assert initial.variables["params"]["stem"]["kernel"].shape == (3, 3, 1, 16)


def test_everything_else_that_does_not_fit_is_refused_by_name(run):
    with pytest.raises(InputError) as refused:
        load_initial(config_of(run, expansion=2.0), template(expansion=2.0), None)
    assert re.search(
        r"does not fit tiny: batch_stats/\S+ is of shape \(\d+,\) there and of shape \(\d+,\) "
        r"here, and so do \d+ more; give the model and the arguments",
        str(refused.value),
    )
    larger = template()
    larger.params["group9"] = {"kernel": jnp.zeros((2, 3))}
    with pytest.raises(InputError, match=r"params/group9/kernel is missing there and of shape"):
        load_initial(config_of(run), larger, None)
    smaller = template()
    del smaller.params["stem"]
    with pytest.raises(InputError, match=r"params/stem/kernel is of shape .* and missing here;"):
        load_initial(config_of(run), smaller, None)


def test_sources_that_do_not_exist(tmp_path):
    with pytest.raises(InputError, match="neither the folder of a run .* Did you mean 'shiftres"):
        load_initial(config_of("shiftresnet20.digit"), template(), None)
    with pytest.raises(InputError, match="is not the workdir of a run"):
        load_initial(config_of(tmp_path), template(), None)
    (tmp_path / "file").write_bytes(b"nothing")
    with pytest.raises(InputError, match="No PyTorch layout is known for model 'tiny'"):
        load_initial(config_of(tmp_path / "file"), template(), None)


def test_the_config_that_weights_were_trained_with(run, tmp_path):
    expected = config_of("")
    for source in (run, run / "checkpoints" / "3"):
        assert trained_config(str(source)) == expected
    assert trained_config("shiftresnet20.digits").data.name == "digits"
    with pytest.raises(InputError, match="theirs/config.json is a file, which does not say what"):
        trained_config(str(run / "config.json"))
    with pytest.raises(InputError, match="is neither the folder of a run"):
        trained_config(str(tmp_path / "nowhere"))


@pytest.mark.slow
def test_fine_tuning_on_a_folder_of_photos(tmp_path, capsys):
    for split in ("train", "test"):
        write_folder(tmp_path / "photos", split)
    workdir = tmp_path / "own"
    call(
        "train",
        [
            "--config=configs/finetune.py:shiftresnet20-3.cifar100",
            f"--config.data.data_dir={tmp_path / 'photos'}",
            *("--config.batch_size=8", "--config.epochs=4.0", "--config.tensorboard=false"),
            f"--workdir={workdir}",
        ],
    )
    assert "from shiftresnet20-3.cifar100, with a new classifier" in capsys.readouterr().err
    call("report", [f"--workdir={workdir}"])
    assert (workdir / "report.png").stat().st_size > 10_000
    photo = tmp_path / "photos" / "test" / "class1" / "0.jpg"
    capsys.readouterr()
    call("predict", [str(photo), f"--model={workdir}", "--format=json"])
    (told,) = json.loads(capsys.readouterr().out)
    assert {each["label"] for each in told["top"]} == {"class0", "class1"}


def test_other_normalization_is_told(run, caplog):
    config = override(config_of(run), {"data.mean": (0.4,)})
    load_initial(config, template(), None)
    assert "was trained on images with data.mean=(0.5,), but here it is (0.4,)" in caplog.text


def test_they_replace_the_weights_and_their_averages(run, variables):
    learner = SimpleNamespace(init=lambda rng: jax.tree.map(jnp.zeros_like, variables))
    state = init_state(learner, optax.sgd(0.1), 0, make_mesh(jax.devices()[:2]), ema=True)
    initial = load_initial(config_of(run), state, None)
    new = with_initial(state, initial)
    assert_same({"params": new.params, "batch_stats": new.batch_stats}, variables)
    assert_same(new.ema, variables)
    # A step donates each of them.
    kernels = (new.params, new.ema["params"])
    a, b = (x["stem"]["kernel"].addressable_shards[0].data for x in kernels)
    assert a.unsafe_buffer_pointer() != b.unsafe_buffer_pointer()


@pytest.mark.slow
def test_training_begins_from_them_and_resumes_without_them(run, variables, tiny_config, tmp_path):
    changes = {"init_from": str(run), "optimizer.frozen": ("stem", "group")}
    config = override(tiny_config, {**changes, "epochs": 1.0, "model.expansion": 1.0})
    workdir = tmp_path / "ours"
    with pytest.raises(InputError, match="does not fit tiny"):
        wrong = override(config, {"model.expansion": 2.0})
        train(wrong, workdir, devices=jax.devices()[:1])
    assert not workdir.exists()

    stop = {"should_stop": lambda step: step == 1, "devices": jax.devices()[:1]}
    with pytest.raises(Exception, match="step 1 with its checkpoint saved"):
        train(config, workdir, **stop)
    trained, _ = restore_variables(workdir / "checkpoints" / "1")
    assert_same(without_classifier(trained), without_classifier(variables))
    classifier = trained["params"]["classifier"]["kernel"]
    assert 0 < np.abs(classifier - variables["params"]["classifier"]["kernel"]).max() < 1

    shutil.rmtree(run)
    with pytest.raises(Exception, match="step 2 with its checkpoint saved"):
        train(config, workdir, **{**stop, "should_stop": lambda step: step == 2})
