import itertools
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from shift_jax.analysis import sweep
from shift_jax.analysis.results_file import append_result, read_results
from shift_jax.analysis.sweep import main
from shift_jax.errors import InputError
from shift_jax.training.arrays import save_arrays
from shift_jax.training.evaluation import TrainedModel, checkpoint_of
from shift_jax.training.stopping import StoppedError
from shift_jax.training.workdir import read_history, sole_owner
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
    main([*arguments, "--seeds=0,3"])
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
    assert "tiny_block-1 seed 0: epoch 1/2, loss " in printed and "images/s" in printed
    assert not list(folder(tmp_path).glob("*.npz"))

    before = (tmp_path / "digits.csv").read_bytes()
    main([*arguments, "--seeds=3,0"])
    assert "All is trained: see" in capsys.readouterr().out
    assert (tmp_path / "digits.csv").read_bytes() == before


def test_a_budget_ends_a_run_where_the_next_command_goes_on(
    arguments, tmp_path, capsys, monkeypatch
):
    # Each look at the clock takes 1000 seconds, and 4500 there are.
    monkeypatch.setattr(sweep, "time", SimpleNamespace(monotonic=itertools.count(0, 1000).__next__))
    main([*arguments, "--seeds=0,3", "--budget_minutes=75"])
    printed = capsys.readouterr().out
    assert "tiny_block-1 seed 0: saved at step 3, at the end of the time" in printed
    assert "2 left to train:\n  tiny_block-1 seed 0: begun, of unknown length\n" in printed
    assert not (tmp_path / "digits.csv").exists()
    assert [path.name for path in folder(tmp_path).glob("*.npz")] == ["seeds-0.npz"]

    main([*arguments, "--seeds=0", "--budget_minutes=600"])
    printed = capsys.readouterr().out
    assert "epoch 1/2" not in printed and "epoch 2/2" in printed
    (row,) = read_results(tmp_path / "digits.csv")

    # Now it is known how long a seed takes: longer than there is time.
    (tmp_path / "digits.csv").unlink()
    append_result(tmp_path / "digits.csv", row._replace(minutes=70.0))
    main([*arguments, "--seeds=3", "--budget_minutes=75"])
    assert "tiny_block-1 seed 3: not begun, about 70.0 min and 58.3 left" in capsys.readouterr().out
    assert not (folder(tmp_path) / "seeds-3.npz").exists()


def test_a_dry_run_tells_and_does_nothing(arguments, tmp_path, capsys):
    main([*arguments, "--seeds=0,3", "--dry_run=true"])
    assert capsys.readouterr().out == (
        "2 left to train:\n"
        "  tiny_block-1 seed 0: of unknown length\n"
        "  tiny_block-1 seed 3: of unknown length\n"
    )
    assert not any(tmp_path.iterdir())


def test_a_run_that_another_sweep_trains_is_left_out(arguments, tmp_path, capsys):
    run = folder(tmp_path) / "seed0"
    run.mkdir(parents=True)
    with sole_owner(run):
        main([*arguments, "--seeds=0"])
    printed = capsys.readouterr().out
    assert "tiny_block-1 seed 0: left out. The workdir" in printed and "is in use by" in printed
    assert "1 left to train" in printed


def test_a_network_whose_loss_is_not_finite_does_not_stop_the_others(
    arguments, tmp_path, capsys, monkeypatch
):
    tried = []

    def train(config, arrays, *, seeds, **_):
        tried.extend(seeds)
        raise sweep.NotFiniteError("The loss is nan.")

    monkeypatch.setattr(sweep, "train", train)
    main([*arguments, "--seeds=0,3"])
    assert tried == [0, 3]
    assert "tiny_block-1 seed 3: given up. The loss is nan." in capsys.readouterr().out


def test_a_signal_saves_and_stops(arguments, tmp_path, monkeypatch):
    def train(config, arrays, *, should_stop, **_):
        assert not should_stop(0.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert should_stop(0.0)
        raise StoppedError(5, None)

    monkeypatch.setattr(sweep, "train", train)
    with pytest.raises(StoppedError, match="SIGTERM at step 5 with its checkpoint saved") as error:
        main([*arguments, "--seeds=0,3"])
    assert error.value.exit_status == 143


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--tabel=5"], "no flag --tabel: .*Did you mean 'table'"),
        (["table=5"], "'table=5' is no flag"),
        (["--table=3"], "table is 3, expected"),
        (["--table=x"], "--table=x is no number above 0: expected, say, --table=5"),
        (["--epochs=0"], "--epochs=0 is no number above 0: expected, say, --epochs=164"),
        (["--epochs=1.5"], "--epochs=1.5 is no number"),
        (["--budget_minutes=-1"], "--budget_minutes=-1 is no number above 0"),
        (["--seeds=1,x"], "--seeds=1,x: expected different integers"),
        (["--seeds=1,1"], "--seeds=1,1: expected different integers"),
        (["--dataset=mnist"], "dataset is 'mnist', expected"),
        (["--dry_run=yes"], "dry_run is 'yes', expected"),
        (["--models=resnet21"], "no network 'resnet21' to train"),
        (["--models=resnet20", "--arrays=none.npz"], "There is no file none.npz"),
    ],
)
def test_bad_command_lines_get_one_sentence(flags, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=sentence) as error:
        main(flags)
    assert "\n" not in str(error.value)
    assert not any(tmp_path.iterdir())


COMMAND = """
import sys
from functools import partial
import tests.training.one_block
from shift_jax.analysis.sweep import main
from shift_jax.training import cli
sys.exit(cli.run(partial(main, sys.argv[1:]), argv=sys.argv[:1]))
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
    assert (folder(tmp_path, "tiny_block-1-400epochs") / "seeds-0.npz").exists()
