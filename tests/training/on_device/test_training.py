import os
import re
import shutil
import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from shift_jax.config import ClassificationConfig, FacesConfig, override
from shift_jax.errors import InputError
from shift_jax.tasks.array_classification import ArrayClassification
from shift_jax.training import loop
from shift_jax.training.evaluation import TrainedModel
from shift_jax.training.loop import DivergedError
from shift_jax.training.mesh import make_mesh
from shift_jax.training.on_device import log, training
from shift_jax.training.on_device.augmentation import draw_crops
from shift_jax.training.on_device.log import read_epochs
from shift_jax.training.on_device.steps import DeviceSteps
from shift_jax.training.on_device.training import train_on_device
from shift_jax.training.optimizer import make_optimizer, make_schedule
from shift_jax.training.processes.stopping import StoppedError
from shift_jax.training.runs.checkpoint_files import read_manifest, update_manifest
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.runs.history import read_history
from shift_jax.training.runs.selection import checkpoint_of
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


def device_steps(c, *seeds, whole_epochs=False):
    """Opened at step 0, and the state there."""
    steps = DeviceSteps(c, ARRAYS, jax.devices()[0], whole_epochs=whole_epochs).of_seeds(seeds)
    steps.open(0)
    return steps, steps.begin()


def take(steps, state, step):
    piece = steps.piece(step)
    steps.compile(state, step, piece)
    return steps.take(state, step, piece)


def batches_of(steps, epochs):
    """The batches that the seed sees, cropped and mirrored by NumPy."""
    for epoch in range(epochs):
        order = np.asarray(steps.order(epoch))
        assert sorted(order) == list(range(300))
        for step, first in enumerate(range(0, 300, 128)):
            chosen = order[first : first + 128]
            key = jax.random.fold_in(steps._crop_keys, epoch * STEPS + step)
            crops = draw_crops(key, len(chosen), pad=1, flip=True)
            images = []
            for image, top, left, mirrored in zip(
                ARRAYS.train_images[chosen], *map(np.asarray, crops), strict=True
            ):
                image = np.pad(image, ((1, 1), (1, 1), (0, 0)))[top : top + 8, left : left + 8]
                images.append(image[:, ::-1] if mirrored else image)
            yield {"image": np.stack(images), "label": ARRAYS.train_labels[chosen]}


@pytest.mark.parametrize(("ema_decay", "parts"), [(0.0, 1), (0.9, 2)])
def test_steps_are_the_trainers_on_the_same_crops_and_flips(ema_decay, parts):
    c = config()
    c.ema_decay, c.accumulation_steps = ema_decay, parts
    steps, state = device_steps(c, 3)
    mesh = make_mesh(jax.devices()[:1])
    task = ArrayClassification(c, SOURCES)
    optimizer = make_optimizer(
        c.optimizer, make_schedule(c.schedule, STEPS, 2 * STEPS), steps_per_epoch=STEPS
    )
    theirs = init_state(task, optimizer, 3, mesh, ema=bool(ema_decay))
    assert_identical(state, theirs)
    train_step = make_train_step(
        task, optimizer, mesh, accumulation_steps=parts, ema_decay=ema_decay
    )
    for step, batch in enumerate(batches_of(steps, epochs=2)):
        state, ours = take(steps, state, step)
        theirs, metrics = train_step(theirs, batch)
        assert float(ours["loss"]) == pytest.approx(float(metrics["loss"]), abs=1e-5), step
        # Over six steps rounding grows.
        limit = 1e-5 if step == 0 else 1e-4
        assert largest_difference(variables(state), variables(theirs)) < limit, step
        evaluated = (each.evaluation_variables() for each in (state, theirs))
        assert largest_difference(*evaluated) < limit, step
    assert int(state.step) == 6
    assert bool(state.ema) == bool(ema_decay)
    # Without the momentum's restart, the second epoch would differ by far more than rounding.
    momentum = jax.tree.leaves(state.opt_state)
    assert largest_difference(momentum, jax.tree.leaves(theirs.opt_state)) < 1e-3


def folders(tmp_path, *seeds):
    return {seed: tmp_path / f"seed{seed}" for seed in seeds}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return train_on_device(config(), ARRAYS, folders(tmp_path_factory.mktemp("alone"), 0, 3))


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
def test_it_learns_the_digits(tmp_path):
    c = config(epochs=10.0)
    c.data.flip = False
    c.model.name = "tiny"
    c.model.arguments = {"expansion": 3.0}
    c.batch_size = 64
    (run,) = train_on_device(c, few_digits(1437, 360), {0: tmp_path})
    assert run.epochs[-1].test["top1"] > 0.8
    assert run.epochs[-1].loss < 0.5 * run.epochs[0].loss


@pytest.mark.slow
def test_seeds_trained_side_by_side_are_those_trained_alone(alone, tmp_path):
    told = []
    together = train_on_device(
        *(config(), ARRAYS, folders(tmp_path, 0, 3)), stacked=True, on_epoch=told.append
    )
    for one, other in zip(alone, together, strict=True):
        assert largest_difference(variables(one.state), variables(other.state)) < 1e-3
        for epoch, same in zip(one.epochs, other.epochs, strict=True):
            assert same.loss == pytest.approx(epoch.loss, rel=1e-4)
            assert same.test["loss"] == pytest.approx(epoch.test["loss"], rel=1e-3)
    assert [(report.epoch, report.seeds) for report in told] == [(1, (0, 3)), (2, (0, 3))]
    assert told[1].latest == [run.epochs[1] for run in together]
    assert told[0].minutes_left > 0 and told[1].minutes_left == 0


@pytest.mark.slow
def test_many_steps_of_two_seeds_in_one_call_as_on_a_gpu_are_the_same():
    two, together = device_steps(config(), 0, 3, whole_epochs=True)
    assert [two.piece(step) for step in (0, 2)] == [(2, 256), (1, 44)]
    together, metrics = take(two, together, 0)
    for index, seed in enumerate((0, 3)):
        one, alone = device_steps(config(), seed)
        assert [one.piece(step) for step in range(3)] == [(1, 128), (1, 128), (1, 44)]
        of_seed = two.split(together)[index]
        for step in range(2):
            alone, ours = take(one, alone, step)
            for name, value in ours.items():
                theirs = float(metrics[name][index, step])
                assert theirs == pytest.approx(float(value), abs=1e-4)
        assert int(of_seed.step) == int(alone.step) == 2
        assert_identical(of_seed.rng, alone.rng)
        for part in ("params", "batch_stats"):
            of_both = (getattr(each, part) for each in (of_seed, alone))
            assert largest_difference(*of_both) < 1e-4


def test_every_epoch_has_an_order_of_its_own():
    steps, _ = device_steps(config(), 3)
    other, _ = device_steps(config(), 0)
    orders = [steps.order(0), steps.order(1), other.order(0)]
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

    folder = {3: tmp_path}
    with pytest.raises(StoppedError) as stopped:
        train_on_device(*(config(), ARRAYS, folder), commit="a", should_stop=should_stop)
    assert stopped.value.step == stop_before - (stop_before > 3)
    told, begun, asked = [], [], []

    def count(seconds):
        asked.append(seconds)
        return False

    (run,) = train_on_device(
        *(config(), ARRAYS, folder),
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
    commits = ("a", "b") if stop_before else ("b",)
    assert run.commits == commits
    # And what is finished is only read.
    (again,) = train_on_device(
        *(config(), ARRAYS, folder), commit="c", should_stop=lambda seconds: True
    )
    assert again.epochs == run.epochs and again.commits == commits
    assert again.minutes == run.minutes > 0
    assert_identical(again.state, run.state)


@pytest.fixture
def clock(monkeypatch):
    """Time passes in the work only: 128 s or 44 s in a step, by its images, and 50 s in a test."""
    clock = SimpleNamespace(now=0.0)
    take, evaluate = DeviceSteps.take, DeviceSteps.evaluate

    def timed_take(self, state, step, piece):
        clock.now += piece.images
        return take(self, state, step, piece)

    def timed_evaluate(self, *arguments):
        clock.now += 50
        return evaluate(self, *arguments)

    monkeypatch.setattr(DeviceSteps, "take", timed_take)
    monkeypatch.setattr(DeviceSteps, "evaluate", timed_evaluate)
    timer = SimpleNamespace(perf_counter=lambda: clock.now, process_time=lambda: clock.now)
    for module in (loop, log):
        monkeypatch.setattr(module, "time", timer)
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
        train_on_device(
            *(config(), ARRAYS, {0: tmp_path}),
            should_stop=lambda seconds: next(pieces) == stop_before,
        )
    asked, told = [], []
    (run,) = train_on_device(
        *(config(), ARRAYS, {0: tmp_path}),
        on_epoch=told.append,
        should_stop=lambda seconds: asked.append(seconds),
    )
    assert [report.minutes_left for report in told] == [pytest.approx(350 / 60), 0]
    assert told[1].images_per_second == pytest.approx(1)
    assert asked == expected
    assert run.minutes == pytest.approx(700 / 60)


def test_a_long_epoch_tells_of_its_steps_and_saves_them(tmp_path, clock, monkeypatch):
    monkeypatch.setattr(log, "_REPORT_EVERY", 200)
    saved, told, seen = [None], [], []
    save = Checkpoints.save

    def spy(self, step, *arguments, **options):
        saved.append(step)
        save(self, step, *arguments, **options)

    monkeypatch.setattr(Checkpoints, "save", spy)
    train_on_device(
        *(config(), ARRAYS, {0: tmp_path}),
        on_steps=told.append,
        should_stop=lambda seconds: seen.append(saved[-1]),
    )
    # Every 120 s, after each step of 128, and before each evaluation.
    assert seen == [None, 1, 2, 3, 3, 4, 5, 6]
    assert told == [(0, 3, 0.0), (2, 3, 128.0), (5, 3, 128.0)]


def test_saving_takes_a_small_part_of_the_time(tmp_path, clock, monkeypatch):
    saved = []
    save = Checkpoints.save

    def slow(self, step, *arguments, **options):
        clock.now += 20
        saved.append(step)
        save(self, step, *arguments, **options)

    monkeypatch.setattr(training, "_SAVE_EVERY", 1000)
    monkeypatch.setattr(Checkpoints, "save", slow)
    # Of 350 s in each of seven epochs, and 20 s more in some.
    train_on_device(config(epochs=3.0), ARRAYS, {0: tmp_path / "often"})
    assert saved == [3, 6, 9]
    saved.clear()
    monkeypatch.setattr(loop, "_SAVING_SHARE", 0.05)
    train_on_device(config(epochs=3.0), ARRAYS, {0: tmp_path / "rarely"})
    assert saved == [3, 9]


def stopped_after_a_step(folders, c=None, arrays=ARRAYS, **options):
    asked = iter((False, True))
    with pytest.raises(StoppedError):
        train_on_device(
            *(c or config(), arrays, folders), should_stop=lambda seconds: next(asked), **options
        )


def test_a_state_of_another_training_is_refused(tmp_path):
    folder = {0: tmp_path}
    stopped_after_a_step(folder)
    other = config()
    other.schedule.learning_rate = 0.2
    with pytest.raises(InputError, match=r"learning_rate is 0.1 there and 0.2 here; choose"):
        train_on_device(other, ARRAYS, folder)
    relabelled = ARRAYS._replace(train_labels=ARRAYS.train_labels[::-1].copy())
    with pytest.raises(InputError, match="belongs to another training .images is"):
        train_on_device(config(), relabelled, folder)
    checkpoint = checkpoint_of(tmp_path, "latest")
    saved = read_manifest(checkpoint)["training"]
    identity = {**saved["identity"], "device": "TPU v5"}
    update_manifest(checkpoint, training={**saved, "identity": identity})
    with pytest.raises(InputError, match="device is 'TPU v5' there and 'cpu' here"):
        train_on_device(config(), ARRAYS, folder)
    update_manifest(checkpoint, training=saved)
    free = config()
    free.data.num_workers = 2
    stopped_after_a_step(folder, free)


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "missing"])
def test_a_damaged_state_is_moved_aside(alone, tmp_path, damage, caplog):
    stopped_after_a_step({0: tmp_path})
    checkpoint = checkpoint_of(tmp_path, "latest")
    files = [path for path in (checkpoint / "state").rglob("*") if path.is_file()]
    path = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(path.read_bytes())
    if damage == "flipped":  # In an array's data.
        content[len(content) // 2] ^= 0xFF
    path.write_bytes(content[: {"cut": len(content) // 2, "empty": 0}.get(damage)])
    if damage == "missing":
        shutil.rmtree(checkpoint / "manifest")
    (run,) = train_on_device(config(), ARRAYS, {0: tmp_path})
    assert "Checkpoint 1 is damaged" in caplog.text and "training begins again" in caplog.text
    assert (tmp_path / "damaged_checkpoints" / "1").is_dir()
    assert run.epochs == alone[0].epochs
    assert_identical(run.state, alone[0].state)


def spoil(folder):
    """Makes a weight of a saved state NaN."""
    steps, _ = device_steps(config(), 0)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state, step = checkpoints.restore_latest(steps.template)
        state.params["classifier"]["bias"] = jnp.full(10, jnp.nan)
        manifest = read_manifest(folder / "checkpoints" / str(step))
        checkpoints.delete(step)
        checkpoints.save(step, state, config=manifest["config"], training=manifest["training"])


def test_a_loss_that_is_not_finite_is_told_and_not_saved(tmp_path, monkeypatch):
    stopped_after_a_step({0: tmp_path})
    spoil(tmp_path)
    checkpoint = checkpoint_of(tmp_path, "latest")
    content = read_manifest(checkpoint)
    sentence = f"The gradient norm at step 2 is nan: .* last good checkpoint is {tmp_path}"
    with pytest.raises(DivergedError, match=sentence):
        train_on_device(config(), ARRAYS, {0: tmp_path})
    assert os.listdir(tmp_path / "checkpoints") == ["1"] and read_manifest(checkpoint) == content
    # Nor within the epoch.
    monkeypatch.setattr(training, "_SAVE_EVERY", -1)
    steps = []
    with pytest.raises(DivergedError, match=sentence):
        train_on_device(
            *(config(), ARRAYS, {0: tmp_path}), should_stop=lambda seconds: steps.append(0)
        )
    assert len(steps) == 1
    assert os.listdir(tmp_path / "checkpoints") == ["1"] and read_manifest(checkpoint) == content


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 3])
def test_a_seed_whose_loss_is_not_finite_takes_nothing_from_the_others(tmp_path, lost):
    both = folders(tmp_path, 0, 3)
    stopped_after_a_step(both, stacked=True)
    spoil(both[lost])
    told, begun = [], []
    (run,) = train_on_device(
        *(config(), ARRAYS, both), stacked=True, on_steps=begun.append, on_epoch=told.append
    )
    assert run.config["seed"] == 3 - lost and run.epochs[1].loss < run.epochs[0].loss
    assert [(report.epoch, report.seeds) for report in told] == [
        (1, (3 - lost,)),
        (2, (3 - lost,)),
    ]
    # What the other one has learned beside it is not lost.
    assert [report.taken for report in begun] == [1, STEPS]
    assert read_epochs(both[lost]) == []


@pytest.mark.slow
def test_seeds_go_on_from_a_step_that_all_have(tmp_path):
    """As after a kill between the saves of one seed and of the next."""
    whole, struck = folders(tmp_path / "whole", 0, 3), folders(tmp_path / "struck", 0, 3)
    results = train_on_device(config(), ARRAYS, whole, stacked=True)
    stopped_after_a_step(struck, stacked=True)
    asked = iter([False] * 4 + [True])
    with pytest.raises(StoppedError):
        train_on_device(
            *(config(), ARRAYS, struck), stacked=True, should_stop=lambda seconds: next(asked)
        )
    assert sorted(os.listdir(struck[3] / "checkpoints")) == ["3", "4"]
    shutil.rmtree(struck[3] / "checkpoints" / "4")
    begun = []
    again = train_on_device(*(config(), ARRAYS, struck), stacked=True, on_steps=begun.append)
    assert begun == [(3, STEPS, 0.0)]
    for one, other in zip(results, again, strict=True):
        assert one.epochs == other.epochs
        assert_identical(one.state, other.state)
        seed = one.config["seed"]
        assert read_history(whole[seed]) == read_history(struck[seed])


@pytest.mark.slow
def test_seeds_at_other_steps_train_apart(alone, tmp_path):
    both = folders(tmp_path, 0, 3)
    asked = iter([False] * 5 + [True])
    with pytest.raises(StoppedError):
        train_on_device(*(config(), ARRAYS, {0: both[0]}), should_stop=lambda seconds: next(asked))
    begun = []
    runs = train_on_device(*(config(), ARRAYS, both), stacked=True, on_steps=begun.append)
    assert [report.taken for report in begun] == [4, 0]
    for run, one in zip(runs, alone, strict=True):
        assert run.epochs == one.epochs
        assert_identical(run.state, one.state)


def test_a_finished_run_has_the_folder_of_any_run(alone, tmp_path):
    (run,) = train_on_device(config(), ARRAYS, {0: tmp_path})
    trained = TrainedModel(checkpoint_of(tmp_path, "latest"))
    assert_identical(trained.variables["params"], run.state.params)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["3", "6"]
    history = read_history(tmp_path)
    assert [r["step"] for r in history if r["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    losses = [r["loss"] for r in history if r["kind"] == "train"]
    assert [np.mean(losses[:3]), np.mean(losses[3:])] == pytest.approx(
        [epoch.loss for epoch in run.epochs]
    )
    assert trained.metrics == run.epochs[-1].test


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fsdp", -1),
        ("eval_every_epochs", 2.0),
        ("data.augmentation", "inception"),
        ("data.image_size", 16),
        ("data.eval_crop", 0.9),
        ("data.train_split", "train[:10]"),
        ("data.eval_split", "validation"),
    ],
)
def test_what_it_does_not_do_is_refused(tmp_path, field, value):
    c = override(config(), {field: value})
    with pytest.raises(
        InputError, match=re.escape(f"{field} is {value!r}, but") + ".*use train.py"
    ):
        train_on_device(c, ARRAYS, {0: tmp_path / "run"})
    assert not (tmp_path / "run").exists()


def test_another_task_is_refused(tmp_path):
    with pytest.raises(InputError, match="task is 'faces', but.*use train.py"):
        train_on_device(FacesConfig(), ARRAYS, {0: tmp_path})


def test_numbers_out_of_range_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"epochs is 1.5, but .* whole epochs"):
        train_on_device(config(epochs=1.5), ARRAYS, {0: tmp_path})
    for seeds in ((), (-1,), (2**32,)):
        with pytest.raises(InputError, match="expected integers from 0"):
            train_on_device(config(), ARRAYS, folders(tmp_path, *seeds))
    c = config()
    c.data.mean = (0.5, 0.5, 0.5)
    with pytest.raises(InputError, match="data.mean is .* expected 1 number"):
        train_on_device(c, ARRAYS, {0: tmp_path})


def test_it_needs_neither_grain_nor_tensorflow_nor_ml_collections():
    code = (
        "import sys\n"
        "for name in ('ml_collections', 'grain', 'clu', 'tensorflow', 'tensorflow_datasets',\n"
        "             'tensorboard', 'tqdm', 'sklearn', 'absl.app'):\n"
        "    sys.modules[name] = None\n"
        f"import {training.__name__}\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
