import json

import jax
import numpy as np
import pytest

from shift_jax.config import override
from shift_jax.errors import InputError
from shift_jax.tasks import make_task
from shift_jax.tasks.verification import verify
from shift_jax.training.evaluation import TrainedModel, collect, evaluate_and_report
from shift_jax.training.mesh import make_mesh
from shift_jax.training.runs.workdir import read_config
from shift_jax.training.step import make_eval_step
from shift_jax.training.train import train
from tests.tasks.faces import faces_config, write_faces


@pytest.fixture
def folder(tmp_path):
    return write_faces(tmp_path / "faces")


@pytest.fixture
def config(folder):
    return faces_config(folder)


def variables_of(task):
    return jax.jit(lambda: task.init(jax.random.key(0)))()


def test_pairs_are_of_identities_that_are_not_trained_on(config):
    task = make_task(config)
    task.check()
    trained = set(task._train_source.class_names)
    assert len(trained) == 4 and task.model.num_identities == 4
    source, pairs = task.source("all"), task.pairs("all")
    assert len(source) == 16 and len(pairs.same) == 16 * 15 / 2
    tested = [source.describe(i).split("/")[-2] for i in range(len(source))]
    assert set(tested) == {f"p{i}" for i in range(8)} - trained
    for first, second, same in zip(pairs.first[:, 0], pairs.second[:, 0], pairs.same, strict=True):
        assert (tested[first] == tested[second]) == same
    drawn = task.pairs("random")
    assert len(drawn.same) == 24 and drawn.same.sum() == 12


def test_identities_are_drawn_by_number_and_by_a_file_of_names(config, tmp_path):
    config.data.num_identities = 2
    task = make_task(config)
    assert len(task._train_source.class_names) == 2
    assert len(task.source("all")) == 6 * 4  # All that are not trained on.
    config.data.num_identities = 0
    config.data.held_out_file = str(tmp_path / "names.txt")
    (tmp_path / "names.txt").write_text("p1\np5\n")
    task = make_task(config)
    assert task._train_source.class_names == ("p0", "p2", "p3", "p4", "p6", "p7")
    assert {task.source("all").describe(i).split("/")[-2] for i in range(8)} == {"p1", "p5"}


def test_another_folder_is_tested_without_those_trained_on(config, tmp_path):
    config.verification.data_dir = str(write_faces(tmp_path / "others", identities=10))
    task = make_task(config)
    trained = set(task._train_source.class_names)
    source = task.source("all")
    tested = {source.describe(i).split("/")[-2] for i in range(len(source))}
    assert tested == {f"p{i}" for i in range(10)} - trained
    assert source.describe(0).startswith(str(tmp_path / "others"))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.held_out", 0, "there are none: set data.held_out to their number"),
        (
            "data.held_out",
            8,
            "data.num_identities and data.held_out do not fit the data: Cannot hold",
        ),
        ("data.eval_split", "validation", "data.eval_split is 'validation', expected 'all', 'ra"),
        ("data.eval_split", "lfw", "'lfw' needs a folder of aligned faces: name it by --data_dir"),
        ("data.name", "folder", "is 'folder', expected 'identities' or 'lfw'"),
        (
            "verification.num_pairs",
            100_000,
            "verification.num_pairs and num_folds ask for: 50,000 pai",
        ),
        ("verification.num_folds", 40, "num_folds is 40, and each of at least two folds needs a"),
        ("verification.seed", -1, "verification.seed is -1, expected an integer of 0 or more"),
        ("data.data_dir", "", "data.data_dir is not set: name the folder of identities"),
        ("loss.margin_size", -1.0, "loss.margin_size is -1.0, expected a number of 0 or more"),
        ("loss.margin_scale", 0.0, "loss.margin_scale is 0.0, expected a number above 0"),
        ("loss.margin", "sphereface", "loss.margin is 'sphereface'"),
        ("loss.center_rate", 1.5, "loss.center_rate is 1.5, expected a number from 0 to 1"),
        ("loss.center_weight", -1.0, "loss.center_weight is -1.0, expected a number of 0 or"),
        ("data.sampling", "even", "'even', expected 'uniform' or 'balanced'"),
    ],
)
def test_what_does_not_fit_is_told_at_once(config, field, value, message):
    config.data.eval_split = "random" if field == "verification.num_pairs" else "all"
    config = override(config, {field: value})
    with pytest.raises(InputError, match=message):
        make_task(config).check()


def test_the_loss_is_softmax_plus_weighted_center_loss(config):
    config.loss.center_weight = 0.25
    task = make_task(config)
    batch = next(task.train_batches(0))
    loss, (stats, metrics) = jax.jit(task.loss)(variables_of(task), batch, jax.random.key(0))
    assert loss == pytest.approx(
        float(metrics["softmax_loss"] + 0.25 * metrics["center_loss"]), rel=1e-6
    )
    assert metrics["center_loss"] > 0.1 and stats["centers"].any()
    config.loss.center_weight = 0.0
    task = make_task(config)
    plain, (stats, alone) = jax.jit(task.loss)(variables_of(task), batch, jax.random.key(0))
    assert plain == pytest.approx(float(metrics["softmax_loss"]), rel=1e-6)
    assert "centers" not in stats and "center_loss" not in alone


def test_each_image_has_its_own_embedding_on_any_number_of_devices(config):
    task = make_task(config)
    variables = variables_of(task)
    source = task.source("all")
    images = np.stack([source[i]["image"] for i in range(len(source))])
    expected = np.asarray(jax.jit(task.embeddings)(variables, images))
    for count in (1, 3):
        mesh = make_mesh(jax.devices()[:count])
        outputs = collect(task, variables, "all", make_eval_step(task, mesh), mesh)
        assert outputs["mask"].sum() == 16
        np.testing.assert_allclose(outputs["embeddings"][:16], expected, rtol=1e-4, atol=1e-5)
    metrics = task.summarize("all", outputs)
    pairs = task.pairs("all")
    by_hand = verify(pairs.scores(expected), pairs.same, pairs.folds)
    assert metrics["auc"] == pytest.approx(by_hand.auc, abs=1e-3)
    assert metrics["accuracy"] == pytest.approx(by_hand.accuracy, abs=0.02)
    assert metrics["pairs"] == 120 and metrics["pairs_left_out"] == 0


def test_unreadable_images_take_their_pairs_with_them(config, tmp_path):
    task = make_task(config)
    broken = task.source("all").describe(2)
    with open(broken, "wb") as file:
        file.write(b"no image")
    mesh = make_mesh(jax.devices()[:1])
    outputs = collect(task, variables_of(task), "all", make_eval_step(task, mesh), mesh)
    metrics = task.summarize("all", outputs)
    assert metrics["pairs"] == 105 and metrics["pairs_left_out"] == 15
    text, record = task.report("all", outputs, tmp_path / "metrics.json")
    assert "15 pairs left out, since 1 images are missing, unreadable or of persons tr" in text
    assert record["missing"] == [broken] and (tmp_path / "metrics.png").stat().st_size > 5000


def test_embeddings_that_are_not_finite_are_no_result(config, tmp_path):
    task = make_task(config)
    outputs = {"embeddings": np.full((16, 8), np.nan), "mask": np.ones(16, bool)}
    assert np.isnan(task.summarize("all", outputs)["auc"])
    with pytest.raises(InputError, match="16 of 16 embeddings are not finite"):
        task.report("all", outputs, tmp_path)


@pytest.fixture
def run(config, tmp_path):
    metrics = train(config, tmp_path / "run", devices=jax.devices()[:2])
    return tmp_path / "run", metrics


def test_a_run_learns_to_tell_places_apart_and_is_evaluated(run, capsys, tmp_path):
    workdir, metrics = run
    assert metrics["auc"] > 0.9
    lines = [json.loads(line) for line in (workdir / "history.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [3, 6]
    record = evaluate_and_report(workdir=workdir)
    assert record["auc"] == pytest.approx(metrics["auc"], abs=1e-6)
    out = capsys.readouterr().out
    assert "24 same and 96 different pairs of 16 images in 3 folds" in out
    assert "accuracy ± std (%)   AUC (%)   EER (%)" in out
    assert json.loads((workdir / "metrics.json").read_text()) == record
    assert (workdir / "metrics.png").exists()

    assert f"{16 * 16 * 3 * 8 + 16:,} parameters, without the head over the 4 identities" in out
    few = evaluate_and_report(
        workdir=workdir, split="random", overrides={"verification.num_pairs": 12}
    )
    assert few["pairs"] == 12 and (workdir / "metrics_random.json").exists()
    assert json.loads((workdir / "metrics.json").read_text()) == record
    for changes, message in (
        ({"verification.num_pair": 2}, "no field 'verification.num_pair'.*num_pairs"),
        ({"verification.num_pairs": "two"}, "num_pairs is 'two', expected a positive integer"),
    ):
        with pytest.raises(InputError, match=message):
            evaluate_and_report(workdir=workdir, overrides=changes)


def test_lfws_pairs_but_those_of_missing_images_and_of_persons_trained_on(run, capsys, tmp_path):
    workdir, _ = run
    seen = read_config(workdir)["data"]["identities"]
    assert len(seen) == 4
    new = [f"p{i}" for i in range(8) if f"p{i}" not in seen]
    rows = [
        f"{new[0]} 1 2", f"{new[1]} 1 3", f"{new[0]} 1 {new[1]} 1", f"{new[2]} 2 {new[3]} 3",
        f"{new[2]} 1 2", f"{new[3]} 1 9", f"{new[1]} 1 {new[3]} 1", f"{seen[0]} 2 {new[3]} 3",
    ]  # fmt: skip
    pairs = tmp_path / "pairs.txt"
    pairs.write_text("\n".join(["2 2", *rows]) + "\n")
    lfw = evaluate_and_report(
        workdir=workdir, split="lfw", data_dir=str(tmp_path / "faces"), pairs_file=str(pairs)
    )
    assert lfw["pairs"] == 6 and lfw["pairs_left_out"] == 2
    person = f"{seen[0]}/{seen[0]}_0002"
    assert lfw["missing"] == [f"{new[3]}/{new[3]}_0009", str(tmp_path / "faces" / person) + ".png"]
    assert "2 pairs left out, since 2 images are missing, unre" in capsys.readouterr().out


def test_whom_a_run_has_seen_is_known_whatever_becomes_of_the_folder(config, run, tmp_path):
    workdir, _ = run
    seen = set(read_config(workdir)["data"]["identities"])
    write_faces(tmp_path / "more", identities=12)
    (tmp_path / "faces").rename(tmp_path / "old")
    trained = TrainedModel(workdir / "checkpoints" / "6", data_dir=str(tmp_path / "more"))
    source = trained.task.source("all")
    tested = {source.describe(i).split("/")[-2] for i in range(len(source))}
    assert tested == {f"p{i}" for i in range(12)} - seen
    assert trained.evaluate("all")["pairs"] == 8 * 4 * (8 * 4 - 1) / 2
    # The run itself does not go on with others.
    (tmp_path / "more").rename(tmp_path / "faces")
    with pytest.raises(InputError, match="are no longer those that .* began with: .* are new"):
        train(config, workdir, devices=jax.devices()[:2])
