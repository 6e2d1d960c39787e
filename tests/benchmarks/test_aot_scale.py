"""The table's arithmetic; the compiler itself is asked by hand."""

import argparse
import csv

import pytest

from benchmarks import aot_scale
from benchmarks.aot_scale import CELLS
from benchmarks.aot_step import Cell

SUM = "%s = f32[1000]{0} all-reduce(%x), replica_groups={{0,1,2,3}}, to_apply=%add"
LOOP = (
    "%w = (s32[]) while(%t), condition=%condition, body=%body, "
    'backend_config={"known_trip_count":{"n":"4"}}'
)


def found(*instructions, **changed):
    """What the compiler says of a small program; chips of the table send 100 GB/s or more."""
    lines = "\n".join(f"  {each}" for each in instructions)
    body = f"%body (p: (s32[])) -> (s32[]) {{\n  {SUM}\n}}\n" if LOOP in instructions else ""
    return {
        "text": f"{body}\nENTRY %main (p: f32[8]) -> f32[8] {{\n{lines}\n}}",
        "state_bytes": 3e6,
        "params_bytes": 1e6,
        "argument_bytes": 5e9,
        "output_bytes": 3e9,
        "alias_bytes": 2e9,
        "temporary_bytes": 4e9,
        "flops": 197e9,
        "bytes_accessed": 8190e6,
        "jax": "0",
        "libtpu": "0",
    } | changed


def test_time_is_the_longer_of_products_and_bytes_and_what_is_sent():
    row = aot_scale.row_of(Cell("v5e-16", 2048), found(SUM))
    assert (row["compute_ms"], row["used_gb"]) == ("10.000", "10.00")
    assert row["all_reduce"] == 1 and row["all_reduce_mb"] == "0.00"
    # 2 · 3/4 of 4,000 bytes at 100 GB/s, and 12 hops.
    assert (row["collective_ms"], row["latency_ms"]) == ("0.000", "0.012")
    assert row["images_per_s"] == "204799"
    row = aot_scale.row_of(Cell("v5e-16", 2048), found(SUM, flops=197e12))
    assert row["compute_ms"] == "1000.000"


def test_work_of_the_parts_counts_as_often_as_there_are_parts():
    row = aot_scale.row_of(Cell("v5e-16", 2048, accumulation=4), found(LOOP))
    assert row["accessed_gb"] == f"{4 * 8.19 - 3 * 5e-3:.2f}"
    assert row["gigaflops"] == "788" and row["all_reduce"] == 4


def test_says_no_time_where_the_compiler_counted_a_loop_of_its_own_once():
    row = aot_scale.row_of(Cell("v5e-16", 2048), found(LOOP))
    assert row["all_reduce"] == 4 and "compute_ms" not in row


@pytest.fixture
def compiler(monkeypatch, tmp_path):
    """A compiler for which 256 images fit on a chip; returns the cells that it was asked for."""
    asked = []

    def program(cell):
        asked.append(str(cell))
        return found(*[LOOP] * (cell.accumulation == 4)) if cell.part <= 256 else found(error="no")

    monkeypatch.setattr(aot_scale, "program", program)
    monkeypatch.setattr(aot_scale, "TABLE", tmp_path / "table.csv")
    return asked


def test_takes_more_parts_until_it_fits_and_compiles_nothing_again(compiler):
    flags = argparse.Namespace(again=False, programs=None)
    cell = Cell("v5e-16", 16384)
    aot_scale.measure(cell, {}, flags)
    assert compiler == [
        f"v5e-16x16384{parts}" for parts in ("", *map("/accumulation={}".format, (2, 4)))
    ]
    with aot_scale.TABLE.open() as file:
        assert [row["fits"] for row in csv.DictReader(file)] == ["no", "no", "yes"]
    compiler.clear()
    aot_scale.measure(cell, aot_scale.read_table(), flags)
    # As many images on one chip do not fit either.
    aot_scale.measure(Cell("v5e-1", 1024), aot_scale.read_table(), flags)
    assert compiler == ["v5e-1x1024/accumulation=4"]


def test_markdown_has_a_line_for_each_cell(compiler, capsys):
    flags = argparse.Namespace(again=False, programs=None)
    rows = {}
    for cell in (Cell("v5e-16", 2048), Cell("v5e-16", 2048, fsdp=4), Cell("v5e-16", 16384)):
        aot_scale.measure(cell, rows, flags)
    plain, sharded = (table.splitlines() for table in aot_scale.markdown(rows).split("\n\n"))
    assert len(plain) == 2 + 4 and len(sharded) == 2 + 2
    assert len({line.count("|") for line in plain}) == 1


def test_cells_are_read_as_they_are_written():
    assert [Cell.parse(str(cell)) for cell in CELLS] == list(CELLS)
    with pytest.raises(SystemExit, match="v5e-3x64"):
        Cell.parse("v5e-3x64")
