import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from shift_jax.config import ClassificationConfig, FacesConfig, override
from shift_jax.errors import InputError
from shift_jax.tasks.array_classification import ArrayClassification
from shift_jax.training.evaluation import TrainedModel, checkpoint_of
from shift_jax.training.mesh import make_mesh
from shift_jax.training.on_device import in_memory, in_memory_run
from shift_jax.training.on_device.augmentation import draw_crops
from shift_jax.training.on_device.in_memory import state_path, train
from shift_jax.training.on_device.in_memory_files import write_run
from shift_jax.training.on_device.in_memory_run import NotFiniteError
from shift_jax.training.on_device.in_memory_steps import Computations
from shift_jax.training.optimizer import make_optimizer, make_schedule
from shift_jax.training.processes.stopping import StoppedError
from shift_jax.training.runs.history import read_history
from shift_jax.training.step import init_state, make_train_step
from tests.conftest import REPOSITORY
from tests.training.one_block import few_digits, little_compilation


@pytest.fixture(autouse=True, scope="module")
def quick():
    with little_compilation():
        yield


ARRAYS = few_digits()
SOURCES = {"train": ARRAYS.train_source, "test": ARRAYS.test_source}
# 300 images make two batches of 128 and one of 44; 70 test images two of 32 and one of 6.
STEPS = 3


def config(epochs=2.0, **model):
    """All that the authors' recipe has, for a network of one block."""
    config = ClassificationConfig()
    config.model.name = "tiny_block"
    config.model.arguments = {"expansion": 1.0}
    config.data.name = "digits"
    config.data.pad = 1
    config.data.flip = True
    config.data.mean = (0.3,)
    config.batch_size = 128
    config.eval_batch_size = 32
    config.epochs = epochs
    config.schedule.learning_rate = 0.1
    config.schedule.boundaries_epochs = (epochs / 2,)
    config.optimizer.restart_momentum_each_epoch = True
    return config


def variables(state):
    return {"params": state.params, "batch_stats": state.batch_stats}


def largest_difference(one, other):
    pairs = zip(*(jax.tree.leaves(jax.device_get(tree)) for tree in (one, other)), strict=True)
    return max(float(np.abs(a - b).max()) for a, b in pairs)


def assert_identical(one, other):
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        a, b = np.asarray(a), np.asarray(b)
        assert a.dtype == b.dtype and a.tobytes() == b.tobytes()


def batches_of(compute, begun, epochs):
    """The batches that the seed sees, cropped and mirrored by NumPy."""
    for epoch in range(epochs):
        order = np.asarray(compute.order(begun, epoch))
        assert sorted(order) == list(range(300))
        for step, first in enumerate(range(0, 300, 128)):
            chosen = order[first : first + 128]
            key = jax.random.fold_in(begun.crop_key, epoch * STEPS + step)
            crops = draw_crops(key, len(chosen), pad=1, flip=True)
            images = []
            for image, top, left, mirrored in zip(
                ARRAYS.train_images[chosen], *map(np.asarray, crops), strict=True
            ):
                image = np.pad(image, ((1, 1), (1, 1), (0, 0)))[top : top + 8, left : left + 8]
                images.append(image[:, ::-1] if mirrored else image)
            yield {"image": np.stack(images), "label": ARRAYS.train_labels[chosen]}


def test_steps_are_the_trainers_on_the_same_crops_and_flips():
    c = config()
    compute = in_memory.Computations(c, ARRAYS, jax.devices()[0], num_seeds=1, whole_epochs=False)
    progressing = compute.begin((3,))
    mesh = make_mesh(jax.devices()[:1])
    task = ArrayClassification(c, SOURCES)
    optimizer = make_optimizer(
        c.optimizer, make_schedule(c.schedule, STEPS, 2 * STEPS), steps_per_epoch=STEPS
    )
    theirs = init_state(task, optimizer, 3, mesh)
    assert_identical(progressing.state, theirs)
    train_step = make_train_step(task, optimizer, mesh)
    losses = []
    for step, batch in enumerate(batches_of(compute, compute.begin((3,)), epochs=2)):
        piece = compute.pieces[step % STEPS]
        if piece.first == 0:
            progressing, losses = progressing.reset(), []
            order = compute.order(progressing, step // STEPS)
        compute.compile(piece, progressing, order)
        progressing = compute.run(piece, progressing, order)
        theirs, metrics = train_step(theirs, batch)
        losses.append(float(metrics["loss"]))
        assert float(progressing.sums["loss"]) == pytest.approx(sum(losses), abs=1e-5), step
        # Over six steps rounding grows.
        limit = 1e-5 if step == 0 else 1e-4
        assert largest_difference(variables(progressing.state), variables(theirs)) < limit, step
    assert int(progressing.state.step) == 6
    # Without the momentum's restart, the second epoch would differ by far more than rounding.
    momentum = jax.tree.leaves(progressing.state.opt_state)
    assert largest_difference(momentum, jax.tree.leaves(theirs.opt_state)) < 1e-3


@pytest.fixture(scope="module")
def alone():
    return train(config(), ARRAYS, seeds=(0, 3))


def test_it_learns_and_evaluates_every_image_once(alone):
    first, other = alone
    assert [run.config["seed"] for run in alone] == [0, 3]
    for run in alone:
        assert len(run.epochs) == 2 and int(run.state.step) == 2 * STEPS and run.minutes > 0
        assert run.epochs[1].loss < run.epochs[0].loss < 2.6
    assert largest_difference(first.state.params, other.state.params) > 1e-2
    # Once more, image by image and without masks.
    task = ArrayClassification(config(), SOURCES)
    logits = np.asarray(task.logits(variables(first.state), ARRAYS.test_images))
    test = first.epochs[-1].test
    assert test["examples"] == 70
    assert test["top1"] == np.mean(logits.argmax(-1) == ARRAYS.test_labels)
    log_probabilities = np.asarray(jax.nn.log_softmax(logits))
    losses = -log_probabilities[np.arange(70), ARRAYS.test_labels]
    assert test["loss"] == pytest.approx(losses.mean(), rel=1e-5)


@pytest.mark.slow
def test_it_learns_the_digits():
    c = config(epochs=10.0)
    c.data.flip = False
    c.model.name = "tiny"
    c.model.expansion = 3.0
    c.batch_size = 64
    (run,) = train(c, few_digits(1437, 360))
    assert run.epochs[-1].test["top1"] > 0.8
    assert run.epochs[-1].loss < 0.5 * run.epochs[0].loss


@pytest.mark.slow
def test_seeds_trained_at_the_same_time_are_those_trained_alone(alone):
    told = []
    together = train(config(), ARRAYS, seeds=(0, 3), stacked=True, on_epoch=told.append)
    for one, other in zip(alone, together, strict=True):
        assert largest_difference(variables(one.state), variables(other.state)) < 1e-3
        for epoch, same in zip(one.epochs, other.epochs, strict=True):
            assert same.loss == pytest.approx(epoch.loss, rel=1e-4)
            assert same.test["loss"] == pytest.approx(epoch.test["loss"], rel=1e-3)
    assert [(progress.epoch, progress.seeds) for progress in told] == [(1, (0, 3)), (2, (0, 3))]
    assert told[1].latest == [run.epochs[1] for run in together]
    assert told[0].minutes_left > 0 and told[1].minutes_left == 0


@pytest.mark.slow
def test_many_steps_of_two_seeds_in_one_call_as_on_a_gpu_are_the_same():
    device = jax.devices()[0]
    one = in_memory.Computations(config(), ARRAYS, device, num_seeds=1, whole_epochs=False)
    two = Computations(config(), ARRAYS, device, num_seeds=2, whole_epochs=True)
    assert one.pieces == ((0, 1, 128), (1, 1, 128), (2, 1, 44))
    assert two.pieces == ((0, 2, 128), (2, 1, 44))
    together = steps_of(two, two.pieces[:1], (0, 3))
    for seed, progressing in zip((0, 3), two.of_seeds(together), strict=True):
        alone = steps_of(one, one.pieces[:2], (seed,))
        assert int(progressing.state.step) == int(alone.state.step) == 2
        assert_identical(progressing.state.rng, alone.state.rng)
        for part in ("params", "batch_stats"):
            of_both = (getattr(each.state, part) for each in (progressing, alone))
            assert largest_difference(*of_both) < 1e-4
        assert largest_difference(progressing.sums, alone.sums) < 1e-4


def steps_of(compute, pieces, seeds):
    progressing = compute.begin(seeds)
    order = compute.order(progressing, 0)
    for piece in pieces:
        compute.compile(piece, progressing, order)
        progressing = compute.run(piece, progressing, order)
    return progressing


def test_every_epoch_has_an_order_of_its_own():
    c = config()
    compute = in_memory.Computations(c, ARRAYS, jax.devices()[0], num_seeds=1, whole_epochs=False)
    begun, other = compute.begin((3,)), compute.begin((0,))
    orders = [compute.order(begun, 0), compute.order(begun, 1), compute.order(other, 0)]
    # Of 300 images about one is in the same place by chance.
    for one, another in ((0, 1), (0, 2)):
        assert (np.asarray(orders[one]) == np.asarray(orders[another])).sum() < 20


# 3 is the evaluation of the first epoch.
@pytest.mark.parametrize("stop_before", [0, 2, 3, 6])
def test_a_stopped_and_resumed_run_is_an_uninterrupted_one(alone, tmp_path, stop_before):
    asked = []

    def should_stop(seconds):
        asked.append(seconds)
        return len(asked) == stop_before + 1

    with pytest.raises(StoppedError) as stopped:
        train(*(config(), ARRAYS), seeds=(3,), folder=tmp_path, commit="a", should_stop=should_stop)
    assert stopped.value.step == stop_before - (stop_before > 3)
    told, begun, asked = [], [], []

    def count(seconds):
        asked.append(seconds)
        return False

    (run,) = train(
        *(config(), ARRAYS),
        seeds=(3,),
        folder=tmp_path,
        commit="b",
        on_steps=begun.append,
        on_epoch=told.append,
        should_stop=count,
    )
    assert begun == [(stopped.value.step, STEPS, 0.0)]
    assert len(told) == 2 - stop_before // (STEPS + 1)
    assert len(asked) == 2 * (STEPS + 1) - stop_before  # No step is taken twice.
    assert run.epochs == alone[1].epochs
    assert_identical(run.state, alone[1].state)
    assert run.commits == ("a", "b")
    # And what is finished is only read.
    (again,) = train(
        *(config(), ARRAYS), seeds=(3,), folder=tmp_path, commit="c", should_stop=lambda _: True
    )
    assert again.epochs == run.epochs and again.commits == ("a", "b")
    assert_identical(again.state, run.state)


@pytest.fixture
def clock(monkeypatch):
    """Time passes in the work only: 128 s or 44 s in a step, by its images, and 50 s in a test."""
    clock = SimpleNamespace(now=0.0)
    run, evaluate = Computations.run, Computations.evaluate

    def timed_run(self, piece, *arguments):
        clock.now += piece.count * piece.size
        return run(self, piece, *arguments)

    def timed_evaluate(self, progressing):
        clock.now += 50
        return evaluate(self, progressing)

    monkeypatch.setattr(Computations, "run", timed_run)
    monkeypatch.setattr(Computations, "evaluate", timed_evaluate)
    timer = SimpleNamespace(perf_counter=lambda: clock.now, process_time=lambda: clock.now)
    monkeypatch.setattr(in_memory_run, "time", timer)
    return clock


@pytest.mark.parametrize(
    ("stop_before", "expected"),
    [
        # Each piece is expected to take as long as the last one like it.
        (0, [0, 128, 0, 0, 128, 128, 44, 50]),
        (2, [0, 0, 0, 128, 44, 50]),
        (3, [0, 0, 128, 0, 50]),
    ],
)
def test_the_time_left_is_that_of_whole_epochs(tmp_path, clock, stop_before, expected):
    pieces = iter(range(100))
    with pytest.raises(StoppedError):
        train(
            *(config(), ARRAYS),
            folder=tmp_path,
            should_stop=lambda seconds: next(pieces) == stop_before,
        )
    asked, told = [], []
    train(
        *(config(), ARRAYS),
        folder=tmp_path,
        on_epoch=told.append,
        should_stop=lambda seconds: asked.append(seconds),
    )
    assert [progress.minutes_left for progress in told] == [pytest.approx(350 / 60), 0]
    assert told[1].images_per_second == pytest.approx(1)
    assert asked == expected


def test_a_long_epoch_tells_of_its_steps_and_saves_them(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(in_memory_run, "_TELL_EVERY", 200)
    saved, told = [], []

    def look(seconds):
        found = state_path(tmp_path, (0,))
        saved.append(int(np.load(found)["state/step"]) if found.exists() else None)

    train(config(), ARRAYS, folder=tmp_path, on_steps=told.append, should_stop=look)
    # Every 120 s: after each step of 128, not after that of 44.
    assert saved == [None, 1, 2, 2, 3, 4, 5, 5]
    assert told == [(0, 3, 0.0), (2, 3, 128.0), (5, 3, 128.0)]


def stopped_at_once(folder, c=None, arrays=ARRAYS):
    with pytest.raises(StoppedError):
        train(c or config(), arrays, folder=folder, should_stop=lambda seconds: True)


def test_a_state_of_another_training_is_refused(tmp_path):
    stopped_at_once(tmp_path)
    other = config()
    other.schedule.learning_rate = 0.2
    with pytest.raises(InputError, match=r"learning_rate is 0.1 there and 0.2 here\): choose"):
        train(other, ARRAYS, folder=tmp_path)
    relabelled = ARRAYS._replace(train_labels=ARRAYS.train_labels[::-1].copy())
    with pytest.raises(InputError, match="is of another training .images is"):
        train(config(), relabelled, folder=tmp_path)
    path = state_path(tmp_path, (0,))
    saved = dict(np.load(path))
    facts = json.loads(str(saved["facts"]))
    facts["identity"]["device"] = "TPU v5"
    np.savez(tmp_path / "seeds-1.npz", **{**saved, "facts": np.asarray(json.dumps(facts))})
    (tmp_path / "seeds-1.npz").rename(path)
    with pytest.raises(InputError, match="device is 'TPU v5' there and 'cpu' here"):
        train(config(), ARRAYS, folder=tmp_path)
    np.savez(path, **saved)
    free = config()
    free.data.num_workers = 2
    stopped_at_once(tmp_path, free)


@pytest.mark.parametrize("damage", ["cut", "flipped", "encrypted", "empty"])
def test_a_damaged_state_is_moved_aside(tmp_path, damage, caplog):
    stopped_at_once(tmp_path)
    path = state_path(tmp_path, (0,))
    content = bytearray(path.read_bytes())
    if damage == "flipped":  # In an array's data.
        weights = np.load(path)["state/params/classifier/kernel"].tobytes()
        content[content.index(weights) + 9] ^= 0xFF
    if damage == "encrypted":  # A flag of the first entry in the list at the end.
        content[content.index(b"PK\x01\x02") + 8] ^= 1
    path.write_bytes(content[: {"cut": len(content) // 2, "empty": 0}.get(damage)])
    stopped_at_once(tmp_path)
    assert "seeds-0.npz is damaged" in caplog.text
    assert path.with_name("seeds-0.npz.damaged").exists() and path.exists()


def spoil(path, seed=...):
    """Makes a weight of a saved state NaN, in a stack that of one seed."""
    saved = dict(np.load(path))
    saved["state/params/classifier/bias"][seed] = np.nan
    np.savez(path, **saved)


def test_a_loss_that_is_not_finite_is_told_and_not_saved(tmp_path, monkeypatch):
    stopped_at_once(tmp_path)
    path = state_path(tmp_path, (0,))
    spoil(path)
    content = path.read_bytes()
    sentence = "loss of seed 0 is no longer finite in epoch 1: lower schedule"
    with pytest.raises(NotFiniteError, match=sentence):
        train(config(), ARRAYS, folder=tmp_path)
    assert path.read_bytes() == content
    # Nor within the epoch.
    monkeypatch.setattr(in_memory_run, "_SAVE_EVERY", -1)
    steps = []
    with pytest.raises(NotFiniteError, match=sentence):
        train(config(), ARRAYS, folder=tmp_path, should_stop=lambda seconds: steps.append(0))
    assert len(steps) == 1 and path.read_bytes() == content


@pytest.mark.slow
def test_a_seed_whose_loss_is_not_finite_takes_nothing_from_the_others(tmp_path):
    with pytest.raises(StoppedError):
        train(
            *(config(), ARRAYS),
            seeds=(0, 3),
            stacked=True,
            folder=tmp_path,
            should_stop=lambda seconds: True,
        )
    spoil(state_path(tmp_path, (0, 3)), 0)
    told = []
    (run,) = train(
        *(config(), ARRAYS), seeds=(0, 3), stacked=True, folder=tmp_path, on_epoch=told.append
    )
    assert run.config["seed"] == 3 and run.epochs[1].loss < run.epochs[0].loss
    assert [epoch.is_finite for epoch in told[0].latest] == [False, True]


def test_a_run_that_is_trained_again_has_the_new_network(alone, tmp_path):
    for run in alone:
        # With another seed only, so that the folder stays theirs.
        write_run(tmp_path, run._replace(config=alone[0].config))
        trained = TrainedModel(checkpoint_of(tmp_path, "latest"))
        assert_identical(trained.variables["params"], run.state.params)
        assert os.listdir(tmp_path / "checkpoints") == [str(2 * STEPS)]
        losses = [r["loss"] for r in read_history(tmp_path) if r["kind"] == "train"]
        assert losses == [epoch.loss for epoch in run.epochs]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("accumulation_steps", 2),
        ("ema_decay", 0.9),
        ("fsdp", -1),
        ("eval_every_epochs", 2.0),
        ("data.augmentation", "inception"),
        ("data.image_size", 16),
        ("data.eval_crop", 0.9),
        ("data.train_split", "train[:10]"),
        ("data.eval_split", "validation"),
    ],
)
def test_what_it_does_not_do_is_refused(field, value):
    c = override(config(), {field: value})
    with pytest.raises(
        InputError, match=re.escape(f"{field} is {value!r}, but") + ".*use train.py"
    ):
        train(c, ARRAYS)


def test_another_task_is_refused():
    with pytest.raises(InputError, match="task is 'faces', but.*use train.py"):
        train(FacesConfig(), ARRAYS)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match=r"epochs is 1.5, but .* whole epochs"):
        train(config(epochs=1.5), ARRAYS)
    for seeds in ((), (0, 0), (-1,), (2**32,)):
        with pytest.raises(InputError, match="expected different integers from 0"):
            train(config(), ARRAYS, seeds=seeds)
    c = config()
    c.data.mean = (0.5, 0.5, 0.5)
    with pytest.raises(InputError, match="data.mean is .* expected 1 number"):
        train(c, ARRAYS)


def test_it_needs_neither_grain_nor_tensorflow_nor_ml_collections():
    code = (
        "import sys\n"
        "for name in ('ml_collections', 'grain', 'clu', 'tensorflow', 'tensorflow_datasets',\n"
        "             'tensorboard', 'tqdm', 'sklearn', 'absl.app'):\n"
        "    sys.modules[name] = None\n"
        f"import {in_memory.__name__}, shift_jax.training.runs.checkpoints\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
