import json
import math
import signal

import jax
import numpy as np
import pytest

from shift_jax.config import override
from shift_jax.errors import InputError
from shift_jax.tasks import make_task
from shift_jax.training.loop import DivergedError
from shift_jax.training.mesh import make_mesh
from shift_jax.training.optimizer import make_optimizer, make_schedule
from shift_jax.training.processes.stopping import StoppedError
from shift_jax.training.runs.checkpoint_files import restore_variables
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.runs.history import read_history
from shift_jax.training.runs.run import Run
from shift_jax.training.step import abstract_state
from shift_jax.training.train import train


def saved_state(config, workdir, step, devices):
    """All arrays of a checkpoint: params, batch_stats, optimizer state, step and RNG."""
    task = make_task(config)
    schedule = make_schedule(config.schedule, task.steps_per_epoch, 1)
    optimizer = make_optimizer(config.optimizer, schedule, task.steps_per_epoch)
    template = abstract_state(task, optimizer, config.seed, make_mesh(devices))
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        state = checkpoints.restore(template, step)
    return jax.tree.map(np.asarray, state.replace(rng=jax.random.key_data(state.rng)))


def assert_identical(first, second):
    for (path, a), (_, b) in zip(
        *map(jax.tree_util.tree_leaves_with_path, (first, second)), strict=True
    ):
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes(), jax.tree_util.keystr(path)


@pytest.mark.parametrize(
    ("stop_at", "workers"), [(5, 0), pytest.param(7, 2, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("devices", [pytest.param(1, marks=pytest.mark.slow), 8], indirect=True)
def test_a_stopped_and_resumed_run_equals_an_uninterrupted_one(
    tiny_config, tmp_path, devices, stop_at, workers
):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(tiny_config, whole, devices=devices)

    with pytest.raises(StoppedError, match=f"step {stop_at} with its checkpoint saved"):
        train(tiny_config, parts, devices=devices, should_stop=lambda step: step == stop_at)
    resumed = override(tiny_config, {"data.num_workers": workers})
    train(resumed, parts, devices=devices)

    assert_identical(
        saved_state(tiny_config, whole, 14, devices), saved_state(tiny_config, parts, 14, devices)
    )
    assert read_history(parts) == read_history(whole)
    steps = [r["step"] for r in read_history(whole) if r["kind"] == "train"]
    assert steps == list(range(1, 15))


def test_a_signal_at_the_end_of_one_of_several_runs_stops_before_the_next(
    tiny_config, tmp_path, monkeypatch
):
    monkeypatch.setattr(
        "shift_jax.training.train.separate_runs", lambda config: dict.fromkeys("ab", config)
    )
    complete = Run.complete

    def complete_and_signal(*args):
        complete(*args)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Run, "complete", complete_and_signal)
    config = override(tiny_config, {"epochs": 1.0})
    with pytest.raises(StoppedError, match="Stopped by SIGTERM at step 7 with its checkpoint"):
        train(config, tmp_path, devices=jax.devices()[:1])
    assert (tmp_path / "a/checkpoints/7").exists() and not (tmp_path / "b").exists()


@pytest.mark.slow
def test_eight_devices_learn_what_one_learns(tiny_config, tmp_path):
    losses = {}
    for count in (1, 8):
        train(tiny_config, tmp_path / str(count), devices=jax.devices()[:count])
        history = read_history(tmp_path / str(count))
        losses[count] = [r["loss"] for r in history if r["kind"] == "train"]
    # BatchNorm sees the global batch, so only the order of float32 sums differs.
    np.testing.assert_allclose(losses[8], losses[1], rtol=1e-3)


def test_the_network_learns_and_the_run_leaves_what_it_should(tiny_config, tmp_path):
    tiny_config.epochs = 8.0
    tiny_config.model.arguments["expansion"] = 3.0
    tiny_config.optimizer.restart_momentum_each_epoch = False
    tiny_config.data.drop_remainder = False
    metrics = train(tiny_config, tmp_path, devices=jax.devices()[:1])
    assert metrics["top1"] > 0.6
    assert metrics["examples"] == 360
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoints",
        "config.json",
        "data.json",
        "history.jsonl",
        "lock",
    ]
    variables, config = restore_variables(tmp_path / "checkpoints" / "64")
    assert config == json.loads((tmp_path / "config.json").read_text())
    assert set(variables) == {"params", "batch_stats"}


@pytest.mark.slow
def test_bfloat16_and_cosine_train_too(tiny_config, tmp_path):
    tiny_config.model.dtype = "bfloat16"
    tiny_config.schedule.name = "cosine"
    tiny_config.schedule.warmup_epochs = 0.5
    tiny_config.label_smoothing = 0.1
    tiny_config.optimizer.clip_norm = 1.0
    train(tiny_config, tmp_path, devices=jax.devices()[:1])
    losses = [r["loss"] for r in read_history(tmp_path) if r["kind"] == "train"]
    assert losses[-1] < 0.9 * losses[0]
    variables, _ = restore_variables(tmp_path / "checkpoints" / "14")
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}


def test_a_finished_run_is_evaluated_again_and_not_changed(tiny_config, tmp_path, capsys):
    one = jax.devices()[:1]
    first = train(tiny_config, tmp_path, devices=one)
    before = saved_state(tiny_config, tmp_path, 14, one)
    history = read_history(tmp_path)
    assert " 1,437 examples in 10 classes, " in capsys.readouterr().err
    assert train(tiny_config, tmp_path, devices=one) == first
    assert "is trained to its last step, 14" in capsys.readouterr().err
    assert_identical(saved_state(tiny_config, tmp_path, 14, one), before)
    assert read_history(tmp_path) == history


def test_a_diverging_run_stops_and_names_the_last_good_checkpoint(tiny_config, tmp_path):
    tiny_config.schedule.learning_rate = 1e-3
    tiny_config.schedule.boundaries_epochs = (1.3,)
    tiny_config.schedule.factor = 1e38
    tiny_config.epochs = 4.0
    with pytest.raises(DivergedError) as raised:
        train(tiny_config, tmp_path, devices=jax.devices()[:1])
    sentence = str(raised.value)
    bad = [
        r
        for r in read_history(tmp_path)
        if r["kind"] == "train"
        and not (math.isfinite(r["loss"]) and math.isfinite(r["gradient_norm"]))
    ]
    assert f"at step {bad[0]['step']} is nan: training stopped" in sentence
    assert f"the last good checkpoint is {tmp_path / 'checkpoints' / '7'}" in sentence
    variables, _ = restore_variables(tmp_path / "checkpoints" / "7")
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(variables))


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(tiny_config, tmp_path, caplog):
    one = jax.devices()[:1]
    whole, damaged = tmp_path / "whole", tmp_path / "damaged"
    train(tiny_config, whole, devices=one)
    with pytest.raises(StoppedError):
        train(tiny_config, damaged, devices=one, should_stop=lambda step: step == 10)
    files = [p for p in (damaged / "checkpoints" / "10").rglob("*") if p.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])

    train(tiny_config, damaged, devices=one)
    assert "Checkpoint 10 is damaged" in caplog.text and "step 7 is restored" in caplog.text
    assert (damaged / "damaged_checkpoints" / "10").is_dir()
    assert_identical(
        saved_state(tiny_config, whole, 14, one), saved_state(tiny_config, damaged, 14, one)
    )
    assert read_history(damaged) == read_history(whole)


@pytest.mark.parametrize("epochs", [pytest.param(4.0, marks=pytest.mark.slow), 2.0])
def test_a_run_that_diverges_in_the_last_step_before_an_evaluation(tiny_config, tmp_path, epochs):
    """Its losses are still finite, but the network saved would not be."""
    tiny_config.schedule.learning_rate = 1e-3
    tiny_config.schedule.boundaries_epochs = (2 - 1 / 7,)
    tiny_config.schedule.factor = 1e38
    tiny_config.epochs = epochs
    with pytest.raises(DivergedError, match=r"of test after step 14 is .*checkpoints/7;"):
        train(tiny_config, tmp_path, devices=jax.devices()[:1])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["7"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"batch_size": 204}, "The training batch has 204 examples, .* 8 devices.* multiple of 8"),
        (
            {"data.drop_remainder": False},
            "The last training batch of an epoch has 37 examples, .*drop_remainder=True",
        ),
        ({"model.name": "shiftresnet21"}, "Did you mean 'shiftresnet20'"),
        ({"model.expansion": 0.0}, "expansion 0.0 of 9 channels leaves no channel"),
        ({"model.dtype": "float3"}, "model.dtype is 'float3', expected 'float32', 'bfloat16'"),
        ({"data.name": "digit"}, "Did you mean 'digits'"),
        ({"data.eval_split": "tset"}, "Did you mean 'test'"),
        ({"data.mean": (0.5, 0.5, 0.5)}, r"data.mean is .*, expected 1 number"),
        ({"data.std": (0.0,)}, r"data.std is \(0.0,\), expected numbers above 0"),
        ({"data.std": (0.5, 0.5)}, r"data.std is .*, expected 1 number\(s\)"),
        ({"schedule.name": "cosin"}, "Did you mean 'cosine'"),
        ({"optimizer.weight_decay_on": "weights"}, "expected 'all' or 'kernels'"),
        ({"batch_size": 0}, "batch_size is 0, expected a positive integer"),
        ({"eval_batch_size": 0}, "eval_batch_size is 0, expected a positive integer"),
        ({"log_every_steps": 0}, "log_every_steps is 0, expected a positive integer"),
        ({"epochs": 0.0}, "epochs is 0.0, expected a number above 0"),
        ({"eval_every_epochs": -1.0}, "eval_every_epochs is -1.0"),
        ({"label_smoothing": 3.0}, "label_smoothing is 3.0"),
        ({"seed": -1}, "seed is -1"),
        ({"batch_size": 1600}, "batch_size 1600 is larger than the dataset"),
    ],
)
def test_bad_configs_are_refused_before_the_workdir_is_touched(
    tiny_config, tmp_path, changes, sentence
):
    tiny_config = override(tiny_config, changes)
    with pytest.raises(InputError, match=sentence):
        train(tiny_config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_workdir_of_another_config_is_left_alone(tiny_config, tmp_path):
    with pytest.raises(StoppedError):
        train(tiny_config, tmp_path, should_stop=lambda step: step == 1)
    before = (tmp_path / "history.jsonl").read_text()
    tiny_config.schedule.learning_rate = 0.2
    tiny_config.log_every_steps = 1  # This may change.
    with pytest.raises(InputError, match=r"schedule.learning_rate is 0.1 there and 0.2 here; "):
        train(tiny_config, tmp_path)
    assert (tmp_path / "history.jsonl").read_text() == before
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match="has checkpoints but no config.json"):
        train(tiny_config, tmp_path)


@pytest.mark.slow
def test_a_dataset_that_shrank_is_noticed(tiny_config, tmp_path):
    tiny_config.batch_size = 40
    with pytest.raises(StoppedError):
        train(tiny_config, tmp_path, should_stop=lambda step: step == 36)
    config = json.loads((tmp_path / "config.json").read_text())
    tiny_config.batch_size = config["batch_size"] = 200
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="is trained to step 36, beyond this run's 14 steps"):
        train(tiny_config, tmp_path)
