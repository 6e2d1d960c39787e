import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.paper.sweep import runner, sweep
from shift_jax.paper.sweep.jobs import count_network, jobs_left
from shift_jax.paper.sweep.networks import parse_networks
from shift_jax.paper.sweep.provenance import device_name
from shift_jax.paper.sweep.results_file import Result, append_results, read_results
from shift_jax.paper.sweep.runner import Sweep
from shift_jax.training.evaluation import TrainedModel
from shift_jax.training.loop import DivergedError
from shift_jax.training.on_device.arrays import save_arrays
from shift_jax.training.on_device.log import Epoch
from shift_jax.training.on_device.training import TrainResult
from shift_jax.training.processes.stopping import StoppedError
from shift_jax.training.runs.history import read_history
from shift_jax.training.runs.selection import checkpoint_of
from shift_jax.training.runs.workdir import workdir_lock
from tests.commands.call import call
from tests.conftest import REPOSITORY
from tests.training.one_block import few_digits, little_compilation


@pytest.fixture(autouse=True, scope="module")
def quick():
    with little_compilation():
        yield


@pytest.fixture(scope="module")
def arrays_file(tmp_path_factory):
    """Two batches of training images, and all test images."""
    path = tmp_path_factory.mktemp("arrays") / "digits.npz"
    save_arrays(path, few_digits(256, 360))
    return path


@pytest.fixture
def arguments(arrays_file, tmp_path):
    return [
        *("--models=tiny_block-1", "--dataset=digits", f"--arrays={arrays_file}", "--epochs=2"),
        *(f"--results={tmp_path / 'digits.csv'}", f"--workdir={tmp_path / 'runs'}"),
    ]


def folder(tmp_path, name="tiny_block-1-2epochs"):
    return tmp_path / "runs" / "digits" / name


def test_a_sweep_trains_what_has_no_row_and_leaves_runs(arguments, tmp_path, capsys):
    call("sweep", [*arguments, "--seeds=0,3"])
    printed = capsys.readouterr().out
    rows = read_results(tmp_path / "digits.csv")
    assert [(row.model, row.expansion, row.seed, row.epochs) for row in rows] == [
        ("tiny_block", 1.0, 0, 2),
        ("tiny_block", 1.0, 3, 2),
    ]
    for row in rows:
        run = folder(tmp_path) / f"seed{row.seed}"
        trained = TrainedModel(checkpoint_of(run, "latest"))
        evaluations = [r for r in read_history(run) if r["kind"] == "eval"]
        assert [r["step"] for r in evaluations] == [2, 4]
        assert row.best_top1 == pytest.approx(100 * max(r["top1"] for r in evaluations), abs=1e-4)
        leaves = jax.tree.leaves(trained.variables["params"])
        assert row.params == sum(leaf.size for leaf in leaves) and row.macs > 0
        assert trained.config.seed == row.seed and row.minutes > 0
        assert f"tiny_block-1 seed {row.seed}: done, test top-1 {row.last_top1:.2f} %" in printed
    # The ordinary evaluation of a run's folder finds what its row says.
    top1 = trained.evaluate("test")["top1"]
    assert rows[1].last_top1 == pytest.approx(100 * top1, abs=1e-4)
    assert printed.startswith("digits: 256 training and 360 test images read in ")
    assert "\ntiny_block-1 seed 0 (1 of 2): training, compiling first …\n" in printed
    assert "tiny_block-1 seed 0: epoch 1/2, loss " in printed and "images/s" in printed
    assert sorted(os.listdir(folder(tmp_path))) == ["seed0", "seed3"]

    before = (tmp_path / "digits.csv").read_bytes()
    call("sweep", [*arguments, "--seeds=3,0"])
    assert "All is trained: see" in capsys.readouterr().out
    assert (tmp_path / "digits.csv").read_bytes() == before


def test_a_budget_ends_a_run_where_the_next_command_goes_on(
    arguments, tmp_path, capsys, monkeypatch
):
    # Each look at the clock takes 1000 seconds, and 5700 there are: after the first look one at the
    # job, and one before each of two steps, the evaluation and a step.
    ticking = SimpleNamespace(
        monotonic=itertools.count(0, 1000).__next__, perf_counter=time.perf_counter
    )
    for module in (sweep, runner):
        monkeypatch.setattr(module, "time", ticking)
    call("sweep", [*arguments, "--seeds=0,3", "--budget_minutes=95"])
    printed = capsys.readouterr().out
    assert "tiny_block-1 seed 0: saved at step 3, out of time" in printed
    assert "2 left to train:\n  tiny_block-1 seed 0: begun, of unknown length\n" in printed
    assert not read_results(tmp_path / "digits.csv")
    assert sorted(os.listdir(folder(tmp_path) / "seed0" / "checkpoints")) == ["2", "3"]
    assert not (folder(tmp_path) / "seed3").exists()

    # What is begun is gone on with, however long it will take.
    (network,) = parse_networks(["tiny_block-1"])
    known = Result(
        *(network.model, 1.0, "", "", 9, 1, count_network(network, "digits"), 1.0, 1.0, 2.0),
        *(7000.0, device_name(), "c"),
    )
    append_results(tmp_path / "digits.csv", [known])
    call("sweep", [*arguments, "--seeds=0", "--budget_minutes=600"])
    printed = capsys.readouterr().out
    assert "resuming from epoch 2/2, step 1 of 2, compiling first …" in printed
    assert "epoch 1/2, loss" not in printed and "epoch 2/2, loss" in printed
    assert [row.seed for row in read_results(tmp_path / "digits.csv")] == [9, 0]

    # And what is not, is not where there is not time enough.
    call("sweep", [*arguments, "--seeds=3", "--budget_minutes=75"])
    printed = capsys.readouterr().out
    assert re.search(r"seed 3: not begun, needs 3500\.. min of 58.3 left", printed)
    assert not (folder(tmp_path) / "seed3").exists()


def test_a_dry_run_tells_and_does_nothing(arguments, tmp_path, capsys):
    call("sweep", [*arguments, "--seeds=0,3", "--dry_run=true"])
    assert capsys.readouterr().out == (
        "2 left to train:\n"
        "  tiny_block-1 seed 0: of unknown length\n"
        "  tiny_block-1 seed 3: of unknown length\n"
    )
    assert not any(tmp_path.iterdir())


def test_a_run_that_another_sweep_trains_is_left_out(arguments, tmp_path, capsys):
    run = folder(tmp_path) / "seed0"
    run.mkdir(parents=True)
    with workdir_lock(run):
        call("sweep", [*arguments, "--seeds=0"])
    printed = capsys.readouterr().out
    assert "tiny_block-1 seed 0: left out. The workdir" in printed and "is in use by" in printed
    assert "1 left to train" in printed


def stub_training(monkeypatch, train):
    """Puts a function in place of training, which leaves no runs."""
    monkeypatch.setattr(runner, "train_on_device", train)


def stacked(monkeypatch):
    """Seeds train at the same time, as on a GPU."""

    def on_gpu(seeds, epochs, results, *, stacked):
        return jobs_left(seeds, epochs, results, stacked=True)

    monkeypatch.setattr(runner, "jobs_left", on_gpu)


def trained(seeds):
    """What training returns, of one parameter."""
    test = {"loss": 1.0, "top1": 0.5, "top5": 0.9, "examples": 360}
    state = SimpleNamespace(params={"w": np.zeros(7)})
    return [
        TrainResult({"seed": seed}, state, [Epoch(1.0, 0.5, test)] * 2, 1.0, ("a+", "b"))
        for seed in seeds
    ]


def test_what_cannot_be_trained_does_not_stop_the_others(arguments, tmp_path, capsys, monkeypatch):
    tried = []

    def train(config, arrays, folders, **options):
        tried.extend(folders)
        if 0 in folders:
            sentence = "The loss is nan: lower schedule.learning_rate."
            raise DivergedError(sentence, {0})
        if 3 in folders:
            raise InputError("The state is of another training: delete it.")
        if 4 in folders:
            return train_on_device(config, arrays, folders, **options)
        return trained(folders)

    train_on_device = runner.train_on_device
    stub_training(monkeypatch, train)
    other = folder(tmp_path) / "seed4"
    other.mkdir(parents=True)
    (other / "config.json").write_text('{"seed": 4}')
    with pytest.raises(InputError, match="3 could not be trained"):
        call("sweep", [*arguments, "--seeds=0,3,4,5"])
    assert tried == [0, 3, 4, 5]
    first, left = capsys.readouterr().out.split("3 left to train:\n")
    whys = [
        "tiny_block-1 seed 0: given up. The loss is nan.\n",
        "tiny_block-1 seed 3: left out. The state is of another training: delete it.\n",
        f"tiny_block-1 seed 4: left out. The workdir {other} belongs to another config",
    ]
    assert all(why in first and f"  {why}" in left for why in whys)
    (row,) = read_results(tmp_path / "digits.csv")
    assert (row.seed, row.params, row.last_top1, row.commit) == (5, 7, 50.0, "a+/b")


def test_of_a_stack_the_finite_seeds_have_their_rows(arguments, tmp_path, capsys, monkeypatch):
    stacked(monkeypatch)
    stub_training(monkeypatch, lambda config, arrays, folders, **_: trained([*folders][1:]))
    with pytest.raises(InputError, match="1 could not be trained"):
        call("sweep", [*arguments, "--seeds=0,3"])
    assert [row.seed for row in read_results(tmp_path / "digits.csv")] == [3]
    why = "tiny_block-1 seed 0: given up. Its loss is no longer finite.\n"
    assert f"1 left to train:\n  {why}" in capsys.readouterr().out


def test_seeds_that_do_not_fit_together_train_alone(arguments, tmp_path, capsys, monkeypatch):
    stacked(monkeypatch)

    def train(config, arrays, folders, **_):
        if 3 in folders:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        return trained(folders)

    stub_training(monkeypatch, train)
    with pytest.raises(InputError, match="1 could not be trained"):
        call("sweep", [*arguments, "--seeds=0,3"])
    assert [row.seed for row in read_results(tmp_path / "digits.csv")] == [0]
    printed = capsys.readouterr().out
    assert "seeds 0, 3: too large for the device's memory, each trains alone" in printed
    assert "seed 3: left out. The device has too little memory." in printed


def test_what_another_sweep_has_ended_is_not_trained_again(arguments, tmp_path, monkeypatch):
    stacked(monkeypatch)
    (network,) = parse_networks(["tiny_block-1"])
    row = Result(
        *(
            network.model,
            1.0,
            "",
            "",
            0,
            1,
            count_network(network, "digits"),
            1.0,
            1.0,
            2.0,
            1.0,
            "d",
            "c",
        )
    )
    tried = []

    @contextlib.contextmanager
    def owner(workdir):
        if not read_results(tmp_path / "digits.csv"):
            append_results(tmp_path / "digits.csv", [row])
        yield

    def train(config, arrays, folders, **_):
        tried.append((*folders,))
        # And by one with another workdir.
        append_results(tmp_path / "digits.csv", [row._replace(seed=3)])
        return trained(folders)

    stub_training(monkeypatch, train)
    monkeypatch.setattr(runner, "workdir_lock", owner)
    call("sweep", [*arguments, "--seeds=0,3,4"])
    assert tried == [(3, 4)]
    assert [row.seed for row in read_results(tmp_path / "digits.csv")] == [0, 3, 4]


def test_a_run_that_was_finished_without_its_row_gets_it(arguments, tmp_path, capsys):
    call("sweep", [*arguments, "--seeds=0"])
    (row,) = read_results(tmp_path / "digits.csv")
    (tmp_path / "digits.csv").unlink()
    capsys.readouterr()
    call("sweep", [*arguments, "--seeds=0"])
    assert "compiling first" not in capsys.readouterr().out
    assert read_results(tmp_path / "digits.csv") == [row]


def test_a_row_follows_its_run(arguments, tmp_path, monkeypatch):
    order = []

    def train(config, arrays, folders, **_):
        order.append("run")
        return trained(folders)

    stub_training(monkeypatch, train)
    append = runner.append_results

    def append_results(path, rows):
        order.extend("row" for _ in rows)
        append(path, rows)

    monkeypatch.setattr(runner, "append_results", append_results)
    call("sweep", [*arguments, "--seeds=0"])
    assert order == ["run", "row"]


def test_a_signal_saves_and_stops(arguments, tmp_path, monkeypatch):
    def train(config, arrays, folders, *, should_stop, **_):
        assert not should_stop(0.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop(0.0)
        raise StoppedError(5, None)

    stub_training(monkeypatch, train)
    with pytest.raises(StoppedError, match="SIGTERM at step 5 with its checkpoint saved") as error:
        call("sweep", [*arguments, "--seeds=0,3"])
    assert error.value.exit_status == 143


def test_a_signal_while_a_run_is_written_stops_after_its_row(arguments, tmp_path, monkeypatch):
    def train(config, arrays, folders, **_):
        os.kill(os.getpid(), signal.SIGTERM)  # As its last checkpoint is being saved.
        return trained(folders)

    stub_training(monkeypatch, train)
    with pytest.raises(StoppedError, match="SIGTERM; everything is saved, ") as error:
        call("sweep", [*arguments, "--seeds=0,3"])
    assert error.value.exit_status == 143
    assert [row.seed for row in read_results(tmp_path / "digits.csv")] == [0]


def test_a_piece_that_would_end_after_the_time_is_not_begun(arguments, monkeypatch):
    still = SimpleNamespace(monotonic=lambda: 0.0, perf_counter=time.perf_counter)
    monkeypatch.setattr(sweep, "time", still)
    monkeypatch.setattr(runner, "time", still)

    def train(config, arrays, folders, *, should_stop, **_):
        assert not should_stop(59.0) and should_stop(61.0)
        return trained(folders)

    stub_training(monkeypatch, train)
    call("sweep", [*arguments, "--seeds=0", "--budget_minutes=1"])


def test_rows_of_something_else_are_refused(arguments, tmp_path, monkeypatch):
    (network,) = parse_networks(["tiny_block-1"])
    row = Result(
        *(network.model, 1.0, "", "", 0, 1, 12, 1.0, 1.0, 2.0, 1.0, "d", "c"),
    )
    append_results(tmp_path / "digits.csv", [row])
    with pytest.raises(InputError, match="row of tiny_block-1 has 12 MACs, but with digits"):
        call("sweep", [*arguments, "--seeds=0"])
    # A row of the same allocation's name, but trained with other weights.
    (tmp_path / "digits.csv").unlink()
    network = network._replace(allocation="mine", direction_weights=(1.0, 2.0))
    mine = Sweep("digits", {network: (0,)}, 2, tmp_path / "digits.csv", tmp_path / "runs")
    append_results(
        tmp_path / "digits.csv",
        [
            row._replace(
                allocation="mine", macs=count_network(parse_networks(["tiny_block-1"])[0], "digits")
            )
        ],
    )
    run = folder(tmp_path, "tiny_block-1@mine-2epochs") / "seed0"
    run.mkdir(parents=True)
    (run / "config.json").write_text('{"model": {"direction_weights": [1.0, 2.0]}}')
    mine.check()
    (run / "config.json").write_text('{"model": {"direction_weights": [1.0, 1.0]}}')
    with pytest.raises(InputError, match="tiny_block-1@mine has a row with other direction"):
        mine.check()


def test_files_that_cannot_be_used_are_told_before_the_training(arguments, tmp_path, monkeypatch):
    stub_training(monkeypatch, lambda *_, **__: pytest.fail("It trains."))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="workdir .*file/digits cannot be used"):
        call("sweep", [*arguments, f"--workdir={tmp_path / 'file'}"])
    with pytest.raises(InputError, match="/proc/x.csv cannot be used"):
        call("sweep", [*arguments, "--results=/proc/x.csv"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--tabel=5"], "no flag --tabel: .*Did you mean 'table'"),
        (["table=5"], "Unrecognized arguments: table=5"),
        (["--table=3"], "table is 3, expected"),
        (["--table=x"], "--table is 'x', expected a whole number of at least 1"),
        (["--epochs=0"], "--epochs is '0', expected a whole number of at least 1"),
        (["--epochs=1.5"], "--epochs is '1.5', expected a whole number"),
        (["--budget_minutes=-1"], "--budget_minutes is '-1', expected a number of at least 0"),
        (["--seeds=1,x"], "--seeds is '1,x', expected different integers"),
        (["--seeds=1,1"], "--seeds is '1,1', expected different integers"),
        (["--dataset=mnist"], "dataset is 'mnist', expected"),
        (["--dry_run=yes"], "dry_run is 'yes', expected"),
        (["--models=resnet21"], "no network 'resnet21' to train"),
        (["--models="], "--models= has no value: give one, or leave it out"),
        (["--budget_minutes="], "--budget_minutes= has no value"),
        (["--seeds="], "--seeds= has no value"),
        (["--results="], "--results= has no value"),
        (["--models=resnet20", "--arrays=none.npz"], "There is no file none.npz"),
    ],
)
def test_bad_command_lines_get_one_sentence(flags, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence) as error:
        call("sweep", flags)
    assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


COMMAND = """
import sys
import tests.training.one_block
from shift_jax.commands.dispatch import main
from shift_jax.training import loop
loop._SAVING_SHARE = 1.0  # Its epochs are far shorter than a save: kills shall meet many.
sys.exit(main(["sweep", *sys.argv[1:]]))
"""


def started(arguments, **options):
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, *arguments], cwd=REPOSITORY, text=True, **options
    )


@pytest.mark.slow
def test_a_sweep_killed_again_and_again_ends_as_one_that_was_not(arguments, tmp_path):
    arguments = [argument.replace("--epochs=2", "--epochs=40") for argument in arguments]
    whole, struck = (
        [a.replace(str(tmp_path), str(tmp_path / name)) for a in arguments]
        for name in ("whole", "struck")
    )
    assert started([*whole, "--seeds=0,3"]).wait() == 0
    random = np.random.default_rng(0)
    kills = 0
    while kills < 6:
        process = started([*struck, "--seeds=0,3"], stdout=subprocess.PIPE)
        for line in process.stdout:
            # At any moment of the next epochs: training, evaluating, saving, finishing a run.
            if ": epoch" in line:
                time.sleep(random.uniform(0, 0.3))
                process.kill()
                break
        process.stdout.close()
        kills += process.wait() == -signal.SIGKILL
        if process.returncode == 0:
            break
    assert kills >= 3
    assert started([*struck, "--seeds=0,3"]).wait() == 0
    for seed, *rows in zip(
        (0, 3),
        *(read_results(tmp_path / name / "digits.csv") for name in ("whole", "struck")),
        strict=True,
    ):
        theirs, ours = (row._replace(minutes=0, commit="") for row in rows)
        assert ours == theirs and ours.seed == seed
        histories, weights = [], []
        for name in ("whole", "struck"):
            run = folder(tmp_path / name, "tiny_block-1-40epochs") / f"seed{seed}"
            histories.append((run / "history.jsonl").read_text())
            weights.append(TrainedModel(checkpoint_of(run, "latest")).variables)
        assert histories[0] == histories[1]
        for a, b in zip(*map(jax.tree.leaves, weights), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.slow
def test_sigterm_ends_a_sweep_with_its_state_saved(arguments, tmp_path):
    arguments = [argument.replace("--epochs=2", "--epochs=400") for argument in arguments]
    process = started(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    for line in process.stdout:
        if ": epoch 2/" in line:
            process.terminate()
            break
    _, errors = process.communicate()
    assert process.returncode == 143 and "with its checkpoint saved" in errors
    run = folder(tmp_path, "tiny_block-1-400epochs") / "seed0"
    step = int(re.search(r"at step (\d+) ", errors)[1])
    assert checkpoint_of(run, "latest").name == str(step) and step >= 4


@pytest.mark.slow
def test_two_sweeps_on_one_workdir_share_the_work(arguments, tmp_path):
    arguments = [argument.replace("--epochs=2", "--epochs=20") for argument in arguments]
    processes = [started([*arguments, "--seeds=0,1,2,3"]) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    assert started([*arguments, "--seeds=0,1,2,3"]).wait() == 0
    rows = read_results(tmp_path / "digits.csv")
    assert sorted(row.seed for row in rows) == [0, 1, 2, 3]
    for seed in range(4):
        run = folder(tmp_path, "tiny_block-1-20epochs") / f"seed{seed}"
        steps = [r["step"] for r in read_history(run) if r["kind"] == "train"]
        assert steps == list(range(1, 41))  # No step twice, by two of them at the same time.
