"""Parameters and MACs in the README, the docs and the configs are those of the records.

`test_zoo.py` compares the records with the counter.
"""

import ast
import re

import pytest

from shift_jax import list_models
from shift_jax.models import model_record
from tests.conftest import REPOSITORY

COUNTS = [
    count
    for name in list_models()
    if not name.startswith("tiny")
    for count in model_record(name).counts
]
PARAMETERS = {count.parameters for count in COUNTS}

CONFIGS = sorted(path.stem for path in (REPOSITORY / "configs").glob("*.py"))
PAGES = sorted([REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")])


def numbers(text, least=0):
    found = re.findall(r"\d+(?:,\d{3})*(?:\.\d+)?", text)
    return [number for number in found if float(number.replace(",", "")) >= least]


def unknown_parameters(text):
    return [n for n in numbers(text, least=1000) if int(n.replace(",", "")) not in PARAMETERS]


def unknown_millions(text):
    """Numbers that are no network's MACs in millions, rounded to as many digits."""

    def rounded(number):
        digits = len(number.partition(".")[2])
        return {f"{count.macs / 1e6:,.{digits}f}" for count in COUNTS}

    return [number for number in numbers(text) if number not in rounded(number)]


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_in_configs(name):
    # Unexecuted: the configs need ml_collections, which the package alone does not bring.
    source = (REPOSITORY / "configs" / f"{name}.py").read_text()
    docstring = ast.get_docstring(ast.parse(source), clean=False)
    for size in re.findall(r"^Size: (.*?\.)$", docstring, re.MULTILINE | re.DOTALL):
        text = re.sub(r"\([^)]*in the paper\)|with 10,000", "", " ".join(size.split()))
        macs = re.search(r"((?:[\d,.]+(?:, | and ))*[\d,.]+) M multiply-accumulates", text)
        assert unknown_millions(macs[1]) == []
        assert unknown_parameters(text.replace(macs[0], "")) == []


def columns(table):
    """Columns of a Markdown table by heading."""
    lines = [line.strip()[1:-1] for line in table.splitlines()]
    heading, _, *rows = [re.split(r"(?<!\\)\|", line) for line in lines]
    return {name.strip(): [row[i] for row in rows] for i, name in enumerate(heading)}


def size_columns(page):
    tables = re.findall(r"(?:^\|.*\n)+", page.read_text(), re.MULTILINE)
    by_name = [column for table in tables for column in columns(table).items()]
    return {
        "parameters": " / ".join(
            cell for name, cells in by_name if name == "Parameters" for cell in cells
        ),
        "macs": " / ".join(
            cell.partition(" M")[0] for name, cells in by_name if name == "MACs" for cell in cells
        )
        if page.name != "results.md"  # Whole numbers, of 100 classes, from the sweep's counter.
        else "",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_sizes_in_tables(page):
    sizes = size_columns(page)
    assert unknown_parameters(sizes["parameters"]) == []
    assert unknown_millions(sizes["macs"]) == []


def test_the_tables_are_found():
    text = "".join(size_columns(page)["parameters"] for page in PAGES)
    assert len(numbers(text)) > 5
