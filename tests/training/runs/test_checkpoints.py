"""Checkpoints survive what happens to them: donation, other meshes, crashes and damage."""

import gc
import json
import os
import shutil
import warnings
from pathlib import Path

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from shift_jax.errors import InputError
from shift_jax.training.runs.checkpoint_files import restore_variables
from shift_jax.training.runs.checkpoints import Checkpoints

# Where a read fails, Orbax abandons its other reads; as garbage, they complain to nobody.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CONFIG = {"model": {"name": "tiny", "widths": [8, 16]}, "learning_rate": 0.1, "note": None}


@flax.struct.dataclass
class State:
    step: jax.Array
    params: dict
    batch_stats: dict
    opt_state: tuple
    rng: jax.Array


def make_state(seed=0, rng=None, width=16):
    """A state with every kind of leaf: random bits in all float types, keys and empty nodes."""
    keys = jax.random.split(jax.random.key(seed), 3)
    params = {
        "stem": {"kernel": jax.random.normal(keys[0], (512, width))},
        "head": {"kernel": jax.random.normal(keys[1], (width, 10)).astype(jnp.bfloat16)},
        "activation": {},
    }
    masked = optax.masked(optax.adam(0.1), {"stem": True, "head": False, "activation": False})
    optimizer = optax.chain(optax.clip(1.0), masked)
    return State(
        step=jnp.int32(seed),
        params=params,
        batch_stats={"norm": {"mean": jax.random.normal(keys[2], (width,))}},
        opt_state=(optimizer.init(params), None, jnp.uint32(seed)),
        rng=jax.random.key(seed) if rng is None else rng,
    )


def abstract(state, sharding=None):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding or x.sharding), state
    )


def assert_same(actual, expected):
    """The trees have the same structure, types and bits."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            assert jax.random.key_impl(a) == jax.random.key_impl(b)
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        assert np.asarray(a).shape == np.asarray(b).shape
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def save(directory, steps=(1, 2), **options):
    with Checkpoints(directory, **options) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), config=CONFIG)


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(file):
    """Inverts the bits of the byte in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "run" / "checkpoints"


@pytest.fixture
def said(monkeypatch):
    """The absl warnings; at the end, Orbax's abandoned reads are collected while unheard."""
    messages = []
    monkeypatch.setattr(logging, "warning", lambda text, *args: messages.append(text % args))
    yield messages
    gc.collect()


@pytest.mark.parametrize(
    "rng", [jax.random.key(7), jax.random.key(7, impl="rbg"), jax.random.PRNGKey(7)], ids=str
)
def test_every_leaf_survives_with_its_bits(directory, rng):
    state = make_state(3, rng)
    with warnings.catch_warnings(), Checkpoints(directory) as checkpoints:
        warnings.simplefilter("error")
        checkpoints.save(3, state, config=CONFIG, metrics={"top1": 0.5})
        assert_same(checkpoints.restore(abstract(state), 3), state)
        assert checkpoints.steps() == [3]
        assert checkpoints.latest_step == checkpoints.best_step == 3


@pytest.mark.parametrize("spec", [PartitionSpec(), PartitionSpec("data")], ids=str)
def test_saved_on_one_device_and_restored_onto_a_mesh_and_back(directory, spec):
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    state = make_state()

    def sharding(x):
        divisible = x.shape and x.shape[0] % 8 == 0
        return NamedSharding(mesh, spec if divisible else PartitionSpec())

    on_mesh = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding(x)), state
    )
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(1, state, config=CONFIG)
        restored = checkpoints.restore(on_mesh, 1)
        assert_same(restored, state)
        for leaf, target in zip(jax.tree.leaves(restored), jax.tree.leaves(on_mesh), strict=True):
            assert leaf.sharding.is_equivalent_to(target.sharding, leaf.ndim)
        checkpoints.save(2, restored, config=CONFIG)
        assert_same(checkpoints.restore(abstract(state), 2), state)
    variables, _ = restore_variables(directory / "2")
    assert_same(variables["params"], {k: v for k, v in state.params.items() if v})


@pytest.mark.parametrize("devices", [1, 8])
def test_arrays_may_be_donated_right_after_save(directory, devices):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec())
    # Large enough that the write is still running when the update overwrites the buffers.
    state = jax.device_put({"params": {"w": jnp.arange(2.0**22)}}, sharding)
    expected = jax.tree.map(lambda x: np.array(x, copy=True), state)
    update = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(1, state, config=CONFIG)
        state = update(state)
        for _ in range(3):
            state = update(state)
        assert_same(checkpoints.restore(abstract(state), 1), expected)


def test_newest_and_best_are_kept_while_the_metric_falls(directory):
    state = make_state()
    for step, value in enumerate([0.9, 0.8, 0.7, 0.6, 0.5], start=1):
        # Opened anew each time: the ranking of earlier runs counts too.
        with Checkpoints(directory, keep_latest=2, best_metric="m") as checkpoints:
            checkpoints.save(step, state, config=CONFIG, metrics={"m": value, "other": 0})
            assert checkpoints.steps() == sorted({1, max(1, step - 1), step})
            assert checkpoints.best_step == 1
        assert sorted(int(path.name) for path in directory.iterdir()) == checkpoints.steps()


def test_saves_without_metrics_or_with_nan_are_kept_as_newest_but_never_best(directory):
    metrics = [{"top1": 0.1}, None, {"top1": float("nan")}, None, {"top1": 0.0}, None]
    with Checkpoints(directory, keep_latest=1) as checkpoints:
        assert checkpoints.best_step is None
        for step, values in enumerate(metrics, start=1):
            checkpoints.save(step, make_state(), config=CONFIG, metrics=values)
            assert checkpoints.steps() == sorted({1, step})
            assert checkpoints.best_step == 1


def test_of_equal_metrics_the_newer_is_the_best(directory):
    with Checkpoints(directory, keep_latest=1, keep_best=2) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(step, make_state(), config=CONFIG, metrics={"top1": 0.5})
        assert checkpoints.best_step == 4
        assert checkpoints.steps() == [3, 4]


def test_without_checkpoints(directory):
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.steps() == []
        assert checkpoints.latest_step is None
        assert checkpoints.best_step is None
        assert checkpoints.restore_latest(abstract(make_state())) is None
        with pytest.raises(InputError, match="checkpoints/3 is not a checkpoint"):
            checkpoints.restore(abstract(make_state()), 3)


def test_variables_and_config_come_from_one_folder_alone(directory, tmp_path):
    state = make_state(5)
    config = dict(CONFIG, sizes=(1, 2))
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(5, state, config=config, metrics={"top1": jnp.float32(0.5)})
        config["learning_rate"] = "changed after the save"
    shutil.move(directory / "5", tmp_path / "elsewhere")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        variables, config = restore_variables(tmp_path / "elsewhere")
    assert config == dict(CONFIG, sizes=[1, 2])
    assert all(type(leaf) is np.ndarray for leaf in jax.tree.leaves(variables))
    assert set(variables) == {"params", "batch_stats"}
    assert_same(variables["params"], {k: v for k, v in state.params.items() if v})
    assert_same(variables["batch_stats"], state.batch_stats)


def test_a_model_without_batch_stats_has_an_empty_collection(directory):
    with Checkpoints(directory) as checkpoints:
        checkpoints.save(1, make_state().replace(batch_stats={}), config=CONFIG)
    assert restore_variables(str(directory / "1"))[0]["batch_stats"] == {}


@pytest.mark.parametrize("path", ["7", ".", "1/manifest/metadata", "1"])
def test_variables_of_no_intact_checkpoint(directory, path):
    save(directory)
    flip(largest_file(directory / "1"))
    with pytest.raises(
        InputError, match=f"{directory / path} is not a checkpoint, or a damaged one"
    ):
        restore_variables(directory / path)


def test_a_mistake_in_the_call_is_told_before_anything_is_written(directory):
    for options in ({"keep_latest": 0}, {"keep_best": -1}):
        with pytest.raises(InputError, match="keep_latest of at least 1"):
            Checkpoints(directory, **options)
    state = make_state()
    with Checkpoints(directory) as checkpoints:
        with pytest.raises(InputError, match="'top1'.*top_1"):
            checkpoints.save(1, state, config=CONFIG, metrics={"top_1": 0.5})
        with pytest.raises(InputError, match="not JSON serializable"):
            checkpoints.save(1, state, config={"dtype": jnp.bfloat16})
        checkpoints.save(2, state, config=CONFIG)
        for step in (1, 2):
            with pytest.raises(InputError, match="step 2 is there"):
                checkpoints.save(step, state, config=CONFIG)
        assert checkpoints.steps() == [2]


# What makes a checkpoint unreadable; each takes the folder.
DAMAGES = {
    "truncated data": lambda f: os.truncate(largest_file(f), largest_file(f).stat().st_size // 2),
    "flipped data": lambda f: flip(largest_file(f)),
    "deleted data": lambda f: largest_file(f).unlink(),
    "empty tree metadata": lambda f: (f / "state" / "_METADATA").write_bytes(b""),
    "empty manifest": lambda f: (f / "manifest" / "metadata").write_bytes(b""),
    "other json": lambda f: (f / "manifest" / "metadata").write_text("[1]"),
    "flipped manifest": lambda f: flip(f / "manifest" / "metadata"),
    "no manifest": lambda f: shutil.rmtree(f / "manifest"),
    "no state": lambda f: shutil.rmtree(f / "state"),
    "no content": lambda f: [shutil.rmtree(f), f.mkdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_is_set_aside_and_the_previous_used(directory, said, damage):
    save(directory)
    damage(directory / "2")
    damaged = {path.name for path in (directory / "2").iterdir()}
    with Checkpoints(directory) as checkpoints:
        with pytest.raises(InputError, match=str(directory / "2")):
            checkpoints.restore(abstract(make_state()), 2)
        state, step = checkpoints.restore_latest(abstract(make_state()))
        assert step == 1
        assert_same(state, make_state(1))
        aside = directory.parent / "damaged_checkpoints"
        assert {path.name for path in (aside / "2").iterdir()} == damaged
        (message,) = said
        assert str(aside / "2") in message
        assert "\n" not in message
        checkpoints.save(2, make_state(2), config=CONFIG)
        assert_same(checkpoints.restore_latest(abstract(state))[0], make_state(2))
        # The same step again: what was set aside before is not overwritten.
        damage(directory / "2")
        assert checkpoints.restore_latest(abstract(state))[1] == 1
        assert {path.name for path in aside.iterdir()} == {"2", "2-2"}


def test_no_damage_to_any_file_goes_unnoticed(directory, said, tmp_path):
    save(directory)
    files = [p.relative_to(directory) for p in (directory / "2").rglob("*") if p.is_file()]
    damages = (flip, Path.unlink, lambda file: file.write_bytes(b""))
    for number, (file, damage) in enumerate((f, d) for f in files for d in damages):
        copy = tmp_path / str(number) / "checkpoints"
        shutil.copytree(directory, copy)
        damage(copy / file)
        with Checkpoints(copy) as checkpoints:
            state, step = checkpoints.restore_latest(abstract(make_state()))
        assert_same(state, make_state(step))
        assert (copy.parent / "damaged_checkpoints" / "2").exists() == (step == 1)


def test_nothing_is_moved_if_no_checkpoint_is_readable(directory, said):
    save(directory)
    for step in ("1", "2"):
        largest_file(directory / step).unlink()
    with Checkpoints(directory) as checkpoints:
        for _ in range(2):
            with pytest.raises(InputError, match=f"No checkpoint in {directory}"):
                checkpoints.restore_latest(abstract(make_state()))
        assert checkpoints.steps() == [1, 2]
    assert not said


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            make_state(width=8),
            r"'params/head/kernel' is bfloat16\[16,10\] there and bfloat16\[8,10\]",
        ),
        (
            make_state(rng=jax.random.PRNGKey(0)),
            r"'rng' is key<fry>\[\] there and uint32\[2\] here",
        ),
        (
            make_state().replace(batch_stats={}),
            "'batch_stats/norm/mean' is .* there and missing here",
        ),
        (make_state().replace(step={"extra": jnp.int32(0)}), "'step/extra' is missing there"),
    ],
)
def test_another_model_is_an_error_and_not_damage(directory, said, other, message):
    save(directory)
    with Checkpoints(directory) as checkpoints:
        with pytest.raises(InputError, match=message):
            checkpoints.restore(abstract(other), 2)
        with pytest.raises(InputError, match=message):
            checkpoints.restore_latest(abstract(other))
        assert checkpoints.steps() == [1, 2]
    assert not said
    assert not (directory.parent / "damaged_checkpoints").exists()


def test_a_damaged_best_does_not_stop_the_run(directory):
    with Checkpoints(directory) as checkpoints:
        for step, value in enumerate((0.9, 0.5, 0.6), start=1):
            checkpoints.save(step, make_state(), config=CONFIG, metrics={"top1": value})
    (directory / "1" / "manifest" / "metadata").write_bytes(b"")
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.best_step == 3


def test_what_a_killed_run_left_half_written_is_not_listed_and_removed(directory):
    save(directory)
    leftover = directory / "3.orbax-checkpoint-tmp"
    shutil.copytree(directory / "2", leftover)
    with Checkpoints(directory) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        assert checkpoints.restore_latest(abstract(make_state()))[1] == 2
        checkpoints.save(3, make_state(3), config=CONFIG)
        assert checkpoints.steps() == [2, 3]
    assert not leftover.exists()


@pytest.mark.parametrize("how", ["wait", "save", "close"])
def test_an_error_in_the_background_surfaces_and_costs_no_checkpoint(directory, monkeypatch, how):
    async def finalize(self):
        raise OSError("no space left")

    save(directory)
    checkpoints = Checkpoints(directory)
    with monkeypatch.context() as patch:
        # The very last moment of a save, when Orbax gives the folder its final name.
        path = "orbax.checkpoint._src.path.atomicity.AtomicRenameTemporaryPath.finalize"
        patch.setattr(path, finalize)
        checkpoints.save(3, make_state(3), config=CONFIG)
        with pytest.raises(OSError, match="no space left"):
            if how == "save":
                checkpoints.save(4, make_state(4), config=CONFIG)
            else:
                getattr(checkpoints, how)()
    if how == "close":
        checkpoints = Checkpoints(directory)
    assert checkpoints.steps() == [1, 2]
    checkpoints.save(3, make_state(3), config=CONFIG)
    assert checkpoints.steps() == [2, 3]
    assert_same(checkpoints.restore(abstract(make_state()), 3), make_state(3))
    checkpoints.close()


def test_the_manifest_is_plain_json(directory):
    save(directory)
    content = json.loads((directory / "2" / "manifest" / "metadata").read_text())["content"]
    assert content["config"] == CONFIG
    assert content["tensors"]["params/head/kernel"] == "bfloat16[16,10]"
