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
