import copy
import json
from pathlib import Path

import pytest

from shift_jax.config import (
    TASKS,
    ClassificationConfig,
    FacesConfig,
    cifar,
    from_dict,
    nested,
    override,
    to_dict,
    with_absolute_paths,
)
from shift_jax.errors import InputError
from shift_jax.weights.shipped import read_weights, weights_named

# What config.json held before these classes existed.
LAYOUTS = json.loads(Path(__file__).with_name("layouts.json").read_text())


@pytest.mark.parametrize("task", LAYOUTS)
def test_files_keep_their_layout(task):
    config = TASKS[task]()
    config.model.name = "a_network"
    config.model.arguments = {"expansion": 3.0, "direction_weights": (0.0, 1.0)}
    assert to_dict(config) == LAYOUTS[task]
    assert from_dict(LAYOUTS[task]) == config


def test_lists_become_tuples_and_integers_floats():
    values = to_dict(cifar())
    values["epochs"] = 3
    values["model"]["direction_weights"] = [[1, 2], [3]]
    config = from_dict(values)
    assert config.data.mean == (0.4914, 0.4822, 0.4465)
    assert config.model.arguments["direction_weights"] == ((1, 2), (3,))
    assert isinstance(config.epochs, float)
    assert nested(config)["data"]["mean"] == config.data.mean


def test_fields_that_older_configs_lack_get_the_value_they_implied():
    variables, values = read_weights(weights_named("shiftresnet20.digits"))
    del variables
    assert "augmentation" not in values["data"] and "name" not in values["optimizer"]
    config = from_dict(values)
    assert isinstance(config, ClassificationConfig)
    assert (config.data.augmentation, config.optimizer.name) == ("pad_crop_flip", "sgd")
    # Not the default: an unreadable image was an error.
    assert config.data.max_unreadable_fraction == 0.0
    assert ClassificationConfig().data.max_unreadable_fraction == 0.001
    assert (config.data.eval_crop, config.mixup_alpha, config.fsdp) == (1.0, 0.0, 1)


def test_imported_weights_of_an_unknown_task():
    config = from_dict({"task": "", "model": {"name": "x"}, "label_smoothing": 0.0})
    assert config.model.name == "x" and "label_smoothing" not in to_dict(config)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batchsize": 3}, "The config has no field 'batchsize'. Did you mean 'batch_size'"),
        (
            {"optimizer": {"momentun": 0.5}},
            "The config has no field 'optimizer.momentun'. Did you mean 'optimizer.momentum'",
        ),
        ({"task": "clasification"}, "task is 'clasification', .* Did you mean 'classification'"),
        ({"data": 3}, "The config has no field 'data'"),
        ({"data": {"mean": 3}}, "data.mean is 3, expected numbers: mean of each channel"),
        ({"data": {"mean": ["x"]}}, r"data.mean is \['x'\], expected numbers"),
        ({"batch_size": 2.5}, "batch_size is 2.5, expected a positive integer: images in a"),
        ({"batch_size": True}, "batch_size is True, expected a positive integer"),
        ({"tensorboard": 1}, "tensorboard is 1, expected True or False"),
        ({"epochs": "many"}, "epochs is 'many', expected a number above 0: length of the"),
    ],
)
def test_what_is_no_config(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        from_dict({"task": "classification", **changes})


def test_overrides_leave_the_config_alone():
    config = FacesConfig()
    config.model.arguments = {"width": 1.0}
    before = copy.deepcopy(config)
    changed = override(config, {"verification.num_pairs": 1000, "model.width": 0.5, "epochs": 3})
    assert (changed.verification.num_pairs, changed.model.arguments) == (1000, {"width": 0.5})
    assert changed.epochs == 3.0 and config == before
    assert override(changed, {}) == changed


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"verification.num_pair": 1}, "no field 'verification.num_pair'. Did you mean 'veri"),
        ({"model.width": 1.0}, "no field 'model.width'"),
        ({"verification": 1}, "no field 'verification'"),
        ({"verification.num_pairs": "all"}, "num_pairs is 'all', expected a positive integer"),
    ],
)
def test_overrides_that_do_not_fit(changes, sentence):
    with pytest.raises(InputError, match=sentence):
        override(FacesConfig(), changes)


def test_a_misspelled_attribute_is_an_error():
    config = ClassificationConfig()
    with pytest.raises(AttributeError):
        config.data.imagesize = 32


def test_paths_become_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    config = FacesConfig()
    config.data.data_dir, config.data.held_out_file = "faces/", "~/names.txt"
    config.verification.data_dir, config.init_from = "gs://bucket/faces", "shiftresnet20.digits"
    resolved = with_absolute_paths(config)
    assert resolved.data.data_dir == str(tmp_path / "faces")
    assert resolved.data.held_out_file == "/home/me/names.txt"
    assert resolved.verification.data_dir == "gs://bucket/faces"
    assert resolved.verification.pairs_file == ""
    assert resolved.init_from == "shiftresnet20.digits" and config.data.data_dir == "faces/"
    (tmp_path / "shiftresnet20.digits").mkdir()
    assert with_absolute_paths(config).init_from == str(tmp_path / "shiftresnet20.digits")
    style = TASKS["style"]()
    assert with_absolute_paths(style).style.folder == str(tmp_path / "styles")
    style.style.folder = ""
    with pytest.raises(InputError, match="^style.folder is empty, expected a path"):
        with_absolute_paths(style)


def test_a_task_that_is_not_a_text():
    for task in ([], {}, 3, None):
        with pytest.raises(InputError, match="task is .*expected one of classification"):
            from_dict({"task": task})


def test_a_number_that_no_float_holds():
    for name in ("epochs", "seed"):
        with pytest.raises(InputError, match=f"^{name} is 1000"):
            from_dict({"task": "classification", name: 10**400})
