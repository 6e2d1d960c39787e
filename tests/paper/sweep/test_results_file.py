import os
import subprocess
import sys

import pytest

from shift_jax.errors import InputError
from shift_jax.paper.sweep.results_file import Result, append_results, read_results
from tests.conftest import REPOSITORY

HEADER = (
    "model,expansion,reduction,allocation,seed,params,macs,last_top1,best_top1,epochs,minutes,"
    "device,commit,recipe,shift\n"
)
OLD_HEADER = HEADER.replace(",recipe,shift", "")
OLD_ROW = "shiftresnet20,3,,,0,101492,16439552,62.32,62.5,164,12.25,CPU,1a2b3c4\n"
SHIFT = Result(
    model="shiftresnet20",
    expansion=3.0,
    reduction="",
    allocation="",
    seed=0,
    params=101492,
    macs=16439552,
    last_top1=62.32,
    best_top1=62.5,
    epochs=164.0,
    minutes=12.25,
    device='1 × NVIDIA "H100", 80 GB',
    commit="1a2b3c4+",
)
RESNET = SHIFT._replace(model="resnet20", expansion=None, device="CPU", seed=1)


def test_rows_come_back_as_they_went(tmp_path):
    path = tmp_path / "results" / "cifar100.csv"
    assert read_results(path) == []
    append_results(path, [SHIFT])
    append_results(path, [RESNET, SHIFT._replace(reduction="net", allocation="cross")])
    assert read_results(path) == [
        SHIFT,
        RESNET,
        SHIFT._replace(reduction="net", allocation="cross"),
    ]
    assert path.read_text() == (
        HEADER + 'shiftresnet20,3,,,0,101492,16439552,62.32,62.5,164,12.25,"1 × NVIDIA ""H100"", '
        '80 GB",1a2b3c4+,authors,fixed\n'
        "resnet20,,,,1,101492,16439552,62.32,62.5,164,12.25,CPU,1a2b3c4+,authors,fixed\n"
        'shiftresnet20,3,net,cross,0,101492,16439552,62.32,62.5,164,12.25,"1 × NVIDIA ""H100"", '
        '80 GB",1a2b3c4+,authors,fixed\n'
    )
    assert sorted(os.listdir(path.parent)) == [".cifar100.csv.lock", "cifar100.csv"]


def test_expansions_keep_all_their_digits(tmp_path):
    rows = [SHIFT._replace(expansion=value) for value in (0.33333, 1 / 3, 0.1, 20.0)]
    append_results(tmp_path / "r.csv", rows)
    assert read_results(tmp_path / "r.csv") == rows
    assert "\nshiftresnet20,20,," in (tmp_path / "r.csv").read_text()


def test_no_rows_only_make_the_file(tmp_path):
    for _ in range(2):
        append_results(tmp_path / "new" / "r.csv", [])
    assert (tmp_path / "new" / "r.csv").read_text() == HEADER
    assert read_results(tmp_path / "new" / "r.csv") == []
    with pytest.raises(InputError, match="/proc/r.csv cannot be used"):
        append_results("/proc/r.csv", [])


@pytest.mark.parametrize("kept", [10, len(HEADER) + 30])
def test_a_torn_line_is_no_row_and_goes_with_the_next_append(tmp_path, caplog, kept):
    path = tmp_path / "r.csv"
    append_results(path, [RESNET])
    path.write_bytes(path.read_bytes()[:kept])
    assert read_results(path) == []
    append_results(path, [SHIFT])
    assert read_results(path) == [SHIFT]
    assert path.read_text().startswith(HEADER + "shiftresnet20")
    assert "its writer was killed" in caplog.text


def test_a_disk_that_is_full_leaves_the_rows_there_were(tmp_path, monkeypatch):
    path = tmp_path / "r.csv"
    append_results(path, [RESNET])

    def fail(number):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full, pytest.raises(OSError, match="No space"):
        full.setattr(os, "fsync", fail)
        append_results(path, [SHIFT, SHIFT])
    assert path.read_text().count("\n") == 2
    append_results(path, [SHIFT])
    assert read_results(path) == [RESNET, SHIFT]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a,b\n1,2\n", "is not a results file: expected the first line"),
        (HEADER + "resnet20,,,\n", "Line 2 of .* is not a result"),
        (HEADER + "resnet20,,,,x,1,1,1,1,1,1,d,c,r,s\n", "Line 2 of .* is not a result .*'x'"),
        (HEADER + OLD_ROW, "Line 2 of .* is not a result .*: fix or remove it"),
        (OLD_HEADER + OLD_ROW + "resnet20,,,\n", "Line 3 of .* is not a result"),
        (b"\xff\xfe\n", "not UTF-8"),
    ],
)
def test_other_files_are_refused(tmp_path, content, sentence):
    path = tmp_path / "r.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=sentence):
        read_results(path)


def test_files_without_the_new_columns_hold_controlled_runs(tmp_path):
    (tmp_path / "r.csv").write_text(OLD_HEADER + OLD_ROW)
    (row,) = read_results(tmp_path / "r.csv")
    assert (row.recipe, row.shift, row.is_controlled) == ("authors", "fixed", True)
    assert row == SHIFT._replace(device="CPU", commit="1a2b3c4")
    assert not row._replace(recipe="short").is_controlled
    assert not row._replace(shift="active").is_controlled


@pytest.mark.parametrize("added", [[], [SHIFT._replace(recipe="short", shift="sparse")]])
def test_appending_to_an_old_file_gives_all_rows_the_new_columns(tmp_path, caplog, added):
    path = tmp_path / "r.csv"
    path.write_text(OLD_HEADER + OLD_ROW + "resnet20,,,,0,27")
    before = read_results(path)
    append_results(path, added)
    assert read_results(path) == [*before, *added]
    assert path.read_text().startswith(HEADER + OLD_ROW.replace("\n", ",authors,fixed\n"))
    assert len(path.read_text().splitlines()) == 2 + len(added)
    assert "its writer was killed" in caplog.text
    assert sorted(os.listdir(tmp_path)) == [".r.csv.lock", "r.csv"]


def test_an_old_file_with_a_damaged_row_stays_as_it_is(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(OLD_HEADER + OLD_ROW + "resnet20,,,\n")
    with pytest.raises(InputError, match="Line 3 of .* is not a result"):
        append_results(path, [SHIFT])
    assert path.read_text() == OLD_HEADER + OLD_ROW + "resnet20,,,\n"


def test_appending_to_what_is_no_table_changes_nothing(tmp_path):
    path = tmp_path / "notes.txt"
    for text in ("not a table\n", "not a table", "a\nb"):
        path.write_text(text)
        with pytest.raises(InputError, match="is not a results file"):
            append_results(path, [SHIFT])
        assert path.read_text() == text
    with pytest.raises(InputError, match="cannot be used .*: name another file"):
        append_results(tmp_path, [SHIFT])
    with pytest.raises(InputError, match="cannot be used"):
        append_results(path / "r.csv", [SHIFT])


WRITER = """
import sys, types
# The package without its __init__, which imports JAX: for seconds, and no writer waits for another.
for name in ("shift_jax", "shift_jax.paper"):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [name.replace(".", "/")]
from shift_jax.paper.sweep.results_file import Result, append_results
path, first = sys.argv[1], int(sys.argv[2])
for seed in range(first, first + 50):
    append_results(path, [Result("m", 3.0, "", "", seed, 1, 1, 1.0, 1.0, 1.0, 1.0, "d", "c")])
"""


def test_writers_at_the_same_time_leave_a_whole_file(tmp_path):
    path = tmp_path / "r.csv"
    command = [sys.executable, "-c", WRITER, str(path)]
    writers = [subprocess.Popen([*command, str(100 * n)], cwd=REPOSITORY) for n in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    rows = read_results(path)
    assert sorted(row.seed for row in rows) == [100 * n + i for n in range(3) for i in range(50)]
    # Each one's own rows are in order.
    assert [row.seed for row in rows if row.seed < 100] == list(range(50))
    assert path.read_text().count(HEADER) == 1
