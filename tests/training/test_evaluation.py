import errno
import json
import shutil

import jax
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.tasks import make_task
from shift_jax.training.evaluation import TrainedModel, collect, evaluate_and_report
from shift_jax.training.mesh import make_mesh
from shift_jax.training.runs.selection import checkpoint_of
from shift_jax.training.step import make_eval_step
from shift_jax.training.train import train
from shift_jax.weights.shipped import weights_named


@pytest.mark.parametrize(
    "batch_size", [pytest.param(size, marks=pytest.mark.slow) for size in (7, 512)] + [104]
)
def test_every_example_counts_once_on_any_number_of_devices(tiny_config, batch_size):
    tiny_config.eval_batch_size = batch_size
    task = make_task(tiny_config)
    variables = jax.jit(lambda: task.init(jax.random.key(1)))()
    source = task.source("test")
    images = np.stack([source[i]["image"] for i in range(len(source))])
    labels = np.stack([source[i]["label"] for i in range(len(source))])
    logits = np.asarray(jax.jit(task.logits)(variables, images), np.float64)
    ranks = (logits > logits[np.arange(len(labels)), labels][:, None]).sum(axis=1)
    log_sums = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1)
    loss = (log_sums - logits[np.arange(len(labels)), labels]).mean()
    for count in (1, 3, 8):
        mesh = make_mesh(jax.devices()[:count])
        outputs = collect(task, variables, "test", make_eval_step(task, mesh), mesh)
        metrics = task.summarize("test", outputs)
        assert metrics["examples"] == 360
        assert metrics["top1"] == (ranks < 1).sum() / 360
        assert metrics["top5"] == (ranks < 5).sum() / 360
        assert metrics["loss"] == pytest.approx(loss, rel=1e-5)


@pytest.fixture
def run(tiny_config, tmp_path):
    """A run whose best checkpoint is not its newest."""
    tiny_config.schedule.boundaries_epochs = (1,)
    tiny_config.schedule.factor = 100.0  # Spoils the second epoch.
    train(tiny_config, tmp_path / "run", devices=jax.devices()[:1])
    return tmp_path / "run"


def test_newest_and_best_checkpoint_and_the_files_written(run, capsys):
    assert checkpoint_of(run, "latest").name == "14"
    assert checkpoint_of(run, "best").name == "7"
    latest = evaluate_and_report(workdir=run)
    out = capsys.readouterr().out
    assert f"test top-1 {100 * latest['top1']:.2f} %" in out and "test top-5" in out
    assert "test examples 360" in out
    assert json.loads((run / "metrics.json").read_text()) == latest
    best = evaluate_and_report(workdir=run, which="best", output=run / "best.json")
    assert best["top1"] > latest["top1"]
    assert best["checkpoint"].endswith("checkpoints/7")
    same = evaluate_and_report(checkpoint=run / "checkpoints" / "7", split="train")
    assert same["examples"] == 1437 and same["split"] == "train"
    assert json.loads((run / "metrics_train.json").read_text()) == same
    assert json.loads((run / "metrics.json").read_text()) == latest


def test_a_reader_that_is_gone_is_no_fault_of_the_output_file(run, monkeypatch):
    def gone(*_, **__):
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr("builtins.print", gone)
    with pytest.raises(BrokenPipeError):
        evaluate_and_report(workdir=run)


def test_a_copied_checkpoint_needs_an_output(run, tmp_path):
    shutil.copytree(run / "checkpoints" / "14", tmp_path / "copy")
    with pytest.raises(InputError, match="name the file to write by --output"):
        evaluate_and_report(checkpoint=tmp_path / "copy")
    assert not (tmp_path.parent / "metrics.json").exists()
    evaluate_and_report(checkpoint=tmp_path / "copy", output=tmp_path / "own.json")
    assert json.loads((tmp_path / "own.json").read_text())["examples"] == 360


def test_a_trained_model_carries_its_config(run):
    trained = TrainedModel(run / "checkpoints" / "14")
    assert trained.config.model.name == "tiny"
    assert trained.task.model.num_classes == 10


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({}, "Give one of --workdir"),
        ({"workdir": "a", "checkpoint": "b"}, "Give one of --workdir"),
        ({"workdir": "a", "weights": "b"}, "Give one of --workdir"),
        ({"weights": "shiftresnet20.digit"}, "Did you mean 'shiftresnet20.digits'"),
        ({"workdir": "nowhere"}, "nowhere is not the workdir of a run"),
        ({"workdir": "README.md"}, "README.md is not the workdir of a run"),
        ({"checkpoint": "nowhere/checkpoints/3"}, "is not a checkpoint, or a damaged one"),
    ],
)
def test_bad_arguments(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        evaluate_and_report(**arguments)


def test_shipped_weights_have_the_accuracy_of_their_record(tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    name = "shiftresnet20.digits"
    record = evaluate_and_report(weights=name)
    assert record["top1"] == weights_named(name).top1 == 358 / 360
    assert record["weights"] == name and record["split"] == "test"
    assert json.loads((tmp_path / "runs" / name / "metrics.json").read_text()) == record
    evaluate_and_report(weights=name, split="train", output=tmp_path / "train.json")
    assert json.loads((tmp_path / "train.json").read_text())["split"] == "train"


@pytest.mark.slow
def test_shipped_weights_of_cifar100_have_the_accuracy_of_their_record(shared_data, tmp_path):
    name = "shiftresnet20-3.cifar100"
    record = evaluate_and_report(
        weights=name, data_dir=str(shared_data / "tfds"), output=tmp_path / "metrics.json"
    )
    assert record["examples"] == 10_000
    # Other processors round otherwise, which may turn a tie.
    assert record["top1"] == pytest.approx(weights_named(name).top1, abs=2.1 / 10_000)


def test_a_run_without_a_checkpoint_yet(tmp_path):
    (tmp_path / "config.json").write_text('{"task": "classification"}')
    with pytest.raises(InputError, match="There is no checkpoint in"):
        checkpoint_of(tmp_path, "latest")


def test_an_unknown_split(run):
    with pytest.raises(InputError, match=r"has no split 'tset'.*Did you mean 'test'"):
        evaluate_and_report(workdir=run, split="tset")
