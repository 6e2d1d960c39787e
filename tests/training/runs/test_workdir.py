import json

import pytest

from shift_jax.config import cifar, quickstart, to_dict
from shift_jax.errors import InputError
from shift_jax.training.runs.selection import checkpoint_of
from shift_jax.training.runs.workdir import RUNTIME_ONLY_FIELDS, claim_workdir


def test_fields_that_may_change_when_a_run_resumes():
    assert sorted(RUNTIME_ONLY_FIELDS) == [
        "checkpoint_every_steps",
        "data.data_dir",
        "data.max_unreadable_fraction",
        "data.num_workers",
        "eval_batch_size",
        "fsdp",
        "keep_best",
        "keep_latest",
        "log_every_steps",
        "tensorboard",
    ]


def test_a_workdir_of_an_older_version_goes_on(tmp_path):
    older = to_dict(quickstart())
    del older["mixup_alpha"], older["optimizer"]["name"], older["data"]["augmentation"]
    text = json.dumps(older)
    (tmp_path / "config.json").write_text(text)
    claim_workdir(tmp_path, to_dict(quickstart()))
    assert (tmp_path / "config.json").read_text() == text
    other = quickstart()
    other.mixup_alpha = 0.2
    with pytest.raises(InputError, match=r"config: mixup_alpha is 0.0 there and 0.2 here; choose"):
        claim_workdir(tmp_path, to_dict(other))


def test_a_workdir_of_a_newer_version_is_left_alone(tmp_path):
    newer = to_dict(cifar()) | {"news": 3}
    (tmp_path / "config.json").write_text(json.dumps(newer))
    with pytest.raises(InputError, match="config: news is 3 there and None here; choose"):
        claim_workdir(tmp_path, to_dict(cifar()))
    with pytest.raises(InputError, match="The config has no field 'news'"):
        checkpoint_of(tmp_path, "latest")


def test_one_place_written_in_several_ways_is_one_config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "link").symlink_to("photos")
    config = quickstart()
    config.data.name, config.data.data_dir = "folder", "photos"
    claim_workdir(tmp_path / "run", to_dict(config))
    for same in ("photos/", "./photos", "link", str(tmp_path / "photos")):
        config.data.data_dir = same
        claim_workdir(tmp_path / "run", to_dict(config))
    for other in ("", "photos/x"):
        config.data.data_dir = other
        with pytest.raises(InputError, match="data.data_dir is 'photos' there and"):
            claim_workdir(tmp_path / "run", to_dict(config))


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"model": ' * 3000, "is damaged"),
        ('{"model": ' * 100 + "1" + "}" * 100, "is not the config of a run"),
        ('{"a\\nb": 1}', r"'a\\nb' is 1 there"),
        ('{"task": []}', "belongs to another config"),
    ],
)
def test_a_damaged_config_is_told_in_one_line(tmp_path, content, sentence):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=sentence) as error:
        claim_workdir(tmp_path, to_dict(quickstart()))
    assert "\n" not in str(error.value)
