import pytest

from shift_jax.paper.results_page import results_page
from shift_jax.paper.sweep.results_file import append_results, read_results
from tests.paper.pages import CSV, CSV_10, other_runs


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    (folder / "100.csv").write_text(CSV)
    (folder / "10.csv").write_text(CSV_10)
    append_results(folder / "100.csv", other_runs(read_results(folder / "100.csv")))
    return read_results(folder / "100.csv"), read_results(folder / "10.csv")


@pytest.fixture(scope="module")
def page(results):
    return results_page(*results)
