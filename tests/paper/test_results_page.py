import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from shift_jax.counting import count_macs, count_parameters
from shift_jax.errors import InputError
from shift_jax.models import create_model, model_record
from shift_jax.paper.results_page import results_page, save_page
from shift_jax.paper.sweep.network_runs import rows_of_file
from shift_jax.paper.sweep.networks import NetworkSpec
from shift_jax.paper.sweep.results_file import append_results, read_results
from tests.conftest import REPOSITORY
from tests.paper.pages import CSV, CSV_10, other_runs, section


def test_old_minutes_are_told(results, page):
    assert "wall time, each on a core" not in page
    old = results[0][0]._replace(commit="7204582")
    assert "Runs of the commits 7204582 and 0bc559f count wall time" in results_page([old])


def test_the_order_of_the_rows_does_not_matter(results, page):
    shuffled = list(results[0])
    random.Random(0).shuffle(shuffled)
    assert results_page(shuffled, results[1][::-1]) == page


def test_columns_are_aligned_as_text(page):
    tables = [block.splitlines() for block in page.split("\n\n") if block.startswith("|")]
    assert len(tables) > 8
    for table in tables:
        assert len({len(line) for line in table}) == 1
        assert set(table[1]) <= set("|-: ")


def test_without_runs():
    page = results_page([])
    lines = " ".join(section(page, "## Table 5: all 164 epochs"))
    assert "0 of the table's 33 networks on CIFAR-100 and 0 of 24 on CIFAR-10" in lines
    assert [line for line in page.splitlines() if line.startswith("#")] == [
        "# Accuracies on CIFAR",
        "## Networks that come with the package",
        "## Table 5: all 164 epochs",
        "## Section 4: contributions and correlations",
        "## The recipe",
    ]


def test_command(tmp_path, page):
    (tmp_path / "100.csv").write_text(CSV)
    (tmp_path / "10.csv").write_text(CSV_10)
    append_results(tmp_path / "100.csv", other_runs(read_results(tmp_path / "100.csv")))
    diagonal = {"name": "diagonal", "direction_weights": [1, 0, 0, 0, 1, 0, 0, 0, 1]}
    (tmp_path / "diagonal.json").write_text(json.dumps(diagonal))
    target = tmp_path / "results.md"
    target.write_text("old")
    command = [sys.executable, "-m", "shift_jax.commands.results", f"--output={target}"]
    command += [f"--results={tmp_path / '100.csv'}", f"--cifar10={tmp_path / '10.csv'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{target}: 23 runs on CIFAR-100, 2 on CIFAR-10.\n"
    assert target.read_text(encoding="utf-8") == page.replace(
        "diagonal: weights unknown", "diagonal: 1 0 0 / 0 1 0 / 0 0 1"
    )
    assert str(tmp_path) not in page


def test_only_the_default_file_may_be_absent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert rows_of_file(None, "results/r.csv") == []
    with pytest.raises(InputError, match="none.csv does not exist"):
        rows_of_file(Path("none.csv"), "results/r.csv")


def test_the_page_in_the_docs_is_what_the_command_writes(tmp_path):
    """After new rows run `shift-jax results`."""
    target = tmp_path / "results.md"
    command = [sys.executable, "-m", "shift_jax.commands.results", f"--output={target}"]
    subprocess.run(command, check=True, capture_output=True, cwd=REPOSITORY)
    assert target.read_text() == (REPOSITORY / "docs" / "results.md").read_text()


@pytest.mark.parametrize("dataset", ["cifar100", "cifar10"])
def test_the_sizes_in_the_results_are_the_counters(dataset):
    rows = read_results(REPOSITORY / "results" / f"{dataset}.csv")
    # Depth 20 here: the others take seconds each.
    networks = {NetworkSpec(row.model, row.expansion, row.reduction): row for row in rows}
    for network, row in networks.items():
        if network.model in ("shiftresnet20", "resnet20"):
            model = create_model(network.model, int(dataset[5:]), **network.arguments)
            shape = model_record(network.model).image_shape
            assert (row.params, row.macs) == (
                count_parameters(model, shape),
                count_macs(model, shape),
            )


def test_refuses_a_target_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot be written \\(No such file or directory"):
        save_page(tmp_path / "none" / "results.md", "page")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written \\(Is a directory"):
        save_page(tmp_path / "folder", "page")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
