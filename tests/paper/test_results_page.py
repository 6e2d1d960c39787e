import json
import random
import subprocess
import sys

import pytest
from absl import flags

from shift_jax.errors import InputError
from shift_jax.paper.results_page import results_page, save_page
from shift_jax.paper.sweep.network_runs import rows_of_flag
from shift_jax.paper.sweep.results_file import read_results

CSV = """\
model,expansion,reduction,allocation,seed,params,macs,last_top1,best_top1,epochs,minutes,device,commit
shiftresnet20,3,,,1,101492,16439552,65.5,66.2,164,30.06,GPU A,abc1234
shiftresnet20,3,,,0,101492,16439552,64.5,65.2,164,30,GPU A,abc1234
shiftresnet20,1,,,0,40756,5953792,54.04,54.06,164,20.5,GPU A,abc1234
shiftresnet56,9,,,0,877748,132831488,72.0,72.2,164,1234.5,GPU A,abc1234
shiftresnet56,9,,,1,877748,132831488,72.2,72.5,164,1234.5,"GPU B, 2|3",abc1234
resnet20,,,,0,278324,40818944,66,66.3,164,25,GPU A,abc1234
resnet110,1,module,,0,121424,17000000,64.78,64.79,164,40,GPU A,abc1234
resnet56,1,net,,0,103464,14061976,55.62,55.63,164,40,GPU A,abc1234
depthwiseresnet20,3,,,0,101000,16000000,63.51,63.6,164,40,GPU A,abc1234
resnet20_projection,1,module,,0,41796,5255424,50.5,51,164,40,GPU A,abc1234
shiftresnet20,3,,,0,101492,16439552,40,40.5,8,5,CPU,abc1234+
shiftresnet20,3,,,1,101492,16439552,41,41.5,8,5,CPU,abc1234+
shiftresnet20,3,,,2,101492,16439552,45,45.5,8,5,CPU,abc1234+
shiftresnet20,3,,cross,0,101492,16439552,41,42,8,5,CPU,abc1234+
shiftresnet20,3,,cross,1,101492,16439552,43,44,8,5,CPU,abc1234+
resnet20,1,module,,0,35946,5000000,31,31.5,16,5,CPU,abc1234+
shiftresnet20,1,,diagonal,0,40756,5953792,50,50.5,164,5,CPU,abc1234
shiftresnet20,3,,even,1,101492,16439552,42.5,43.25,8,5,CPU,abc1234+
shiftresnet56,1,,cross,0,107956,15390976,60,61,164,5,CPU,abc1234
"""
CSV_10 = """\
model,expansion,reduction,allocation,seed,params,macs,last_top1,best_top1,epochs,minutes,device,commit
shiftresnet20,3,,,0,95642,16433792,89.9,90.1,164,30,GPU A,abc1234
resnet20,,,,4,272474,40813184,90.3,90.36,164,30,GPU A,abc1234
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    (folder / "100.csv").write_text(CSV)
    (folder / "10.csv").write_text(CSV_10)
    return read_results(folder / "100.csv"), read_results(folder / "10.csv")


@pytest.fixture(scope="module")
def page(results):
    return results_page(*results)


def section(page, heading):
    """Lines below a heading, up to the next one."""
    lines = page.split(f"{heading}\n")[1].splitlines()
    end = next((i for i, line in enumerate(lines) if line.startswith("#")), len(lines))
    return lines[:end]


def table(page, heading):
    """Rows of the table below a heading, without the padding."""
    lines = [line for line in section(page, heading) if line.startswith("|")]
    return [
        [cell.strip() for cell in line.replace("\\|", "¦")[1:-1].split("|")] for line in lines[2:]
    ]


def cells(page, heading):
    """Rows of the table below a heading by first cell."""
    return {first: rest for first, *rest in table(page, heading)}


def row(text):
    return text.split("|")


NOT_RUN = ["not run", "not run"]


def test_shiftresnets(page):
    rows = cells(page, "### ShiftResNet")
    assert len(rows) == 12
    assert rows["shiftresnet20-3"] == [
        *("62.32", "65.83"),
        *("65.00 ± 0.71", "65.70 ± 0.71", "2", "60.1", "GPU A"),
        *("90.08", "89.90", "90.10"),
    ]
    # 55.05 - 1 is 54.05: the last epoch is more than one point below both, the best one is not.
    assert rows["shiftresnet20-1"] == [
        *("55.62", "55.05"),
        *("54.04 (low)", "54.06", "1", "20.5", "GPU A"),
        *("86.66", *NOT_RUN),
    ]
    assert rows["shiftresnet56-9"][2:7] == [
        *("72.10 ± 0.14 (low)", "72.35 ± 0.21 (low)", "2", "2,469.0", "GPU A; GPU B, 2¦3"),
    ]
    assert rows["shiftresnet110-6"] == ["72.56", "73.17", *NOT_RUN, "", "", "", "93.17", *NOT_RUN]


def test_allocations_and_short_schedules_do_not_count_in_table_5(page):
    assert cells(page, "### ShiftResNet")["shiftresnet56-1"][2:4] == NOT_RUN
    assert cells(page, "### ResNet, reduced module-wise")["resnet20-module-1"][2:4] == NOT_RUN


def test_resnets(page):
    assert cells(page, "### ResNet") == {
        "resnet20": row("66.25|–|66.00|66.30|1|25.0|GPU A|91.35|90.30 (low)|90.36"),
        "resnet56": ["69.27", "–", *NOT_RUN, "", "", "", "92.01", *NOT_RUN],
        "resnet110": ["72.11", "–", *NOT_RUN, "", "", "", "92.46", *NOT_RUN],
    }
    module_wise = cells(page, "### ResNet, reduced module-wise")
    assert len(module_wise) == 9
    # Compared with the re-run alone: one point below it is 64.79.
    assert module_wise["resnet110-module-1"][:4] == ["39.90", "65.79", "64.78 (low)", "64.79"]
    remark = "\n".join(section(page, "### ResNet, reduced module-wise"))
    assert "6 to 79 % more parameters" in remark
    assert page.count("projection shortcut") == 1
    net_wise = cells(page, "### ResNet, reduced net-wise")
    assert len(net_wise) == 9
    assert net_wise["resnet56-net-1"][:4] == ["56.62", "–", "55.62", "55.63"]
    assert net_wise["resnet56-net-1"][7:] == ["–", *NOT_RUN]


def test_networks_that_are_not_in_the_paper(page):
    depthwise = cells(page, "### Depthwise ResNet (not in the paper)")
    assert len(depthwise) == 12
    # One point below and no more, though 64.51 - 63.51 is more than 1 in binary.
    assert depthwise["depthwiseresnet20-3"][:3] == ["–", "64.51", "63.51"]
    assert cells(page, "### Other networks") == {
        "resnet20_projection-module-1": row("–|–|50.50|51.00|1|40.0|GPU A|–|not run|not run")
    }


def test_counts_what_is_trained(page):
    assert "Trained so far: 6 of the table's 33 cells on CIFAR-100 and 2 of 24 on CIFAR-10." in page


def test_other_schedules(page):
    heading = "## CIFAR-100: schedules of other lengths than 164 epochs"
    assert cells(page, heading) == {
        "resnet20-module-1": row("52.40|16|35,946|5,000,000|31.00|31.50|1|5.0|CPU"),
        "shiftresnet20-3": row("62.32|8|101,492|16,439,552|42.00 ± 2.65|42.50 ± 2.65|3|15.0|CPU"),
        "shiftresnet20-3@cross": row("–|8|101,492|16,439,552|42.00 ± 1.41|43.00 ± 1.41|2|10.0|CPU"),
        "shiftresnet20-3@even": row("–|8|101,492|16,439,552|42.50|43.25|1|5.0|CPU"),
    }


def test_allocations_are_compared_over_the_same_seeds_and_epochs(page):
    rows = table(page, "## CIFAR-100: shifts allocated otherwise than uniformly")
    # Seed 2 and the 164 epochs of the uniform one are not compared with.
    assert rows == [
        row("shiftresnet20-1|diagonal|uniform|164|1|54.04|50.00|-4.04|54.06|50.50|-3.56"),
        row(
            "shiftresnet20-3|cross|uniform|8|2|40.50 ± 0.71|42.00 ± 1.41|+1.50 ± 0.71"
            "|41.00 ± 0.71|43.00 ± 1.41|+2.00 ± 0.71"
        ),
        row("shiftresnet20-3|cross|even|8|1|42.50|43.00|+0.50|43.25|44.00|+0.75"),
        row("shiftresnet20-3|even|uniform|8|1|41.00|42.50|+1.50|41.50|43.25|+1.75"),
        row("shiftresnet56-1|cross|uniform|164|1|not run|60.00||not run|61.00|"),
    ]


def test_the_weights_of_allocations(results, page):
    lines = section(page, "## CIFAR-100: shifts allocated otherwise than uniformly")
    assert "- cross: 0 1 0 / 1 1 1 / 0 1 0" in lines
    assert "- even: 1 1 1 / 1 1 1 / 1 1 1" in lines
    assert "- diagonal: weights unknown" in lines
    known = results_page(*results, {"diagonal": (1, 0, 0, 0, 0.94321, 0, 0, 0, 1)})
    assert "- diagonal: 1 0 0 / 0 0.9432 0 / 0 0 1\n" in known


def test_every_run_in_order(page):
    lines = table(page, "## CIFAR-100: every run")
    assert len(lines) == 19
    assert lines[0] == ["shiftresnet20-1", "0", "164", "54.04", "54.06", "20.5", "GPU A", "abc1234"]
    assert [line[:3] for line in lines[1:6]] == [
        ["shiftresnet20-1@diagonal", "0", "164"],
        ["shiftresnet20-3", "0", "164"],
        ["shiftresnet20-3", "1", "164"],
        ["shiftresnet20-3", "0", "8"],
        ["shiftresnet20-3", "1", "8"],
    ]
    assert lines[-1][0] == "resnet20_projection-module-1"
    assert ["shiftresnet56-9", "1", "164", "72.20", "72.50", "1,234.5", "GPU B, 2¦3"] in [
        line[:7] for line in lines
    ]


def test_commands(page):
    commands = section(page, "## CIFAR-100: commands")
    sweep = "python -m shift_jax.paper.sweep.sweep --table=5 --dataset=cifar100"
    assert f"{sweep} --models=shiftresnet20-3 --seeds=0,1" in commands
    assert f"{sweep} --models=shiftresnet20-3 --seeds=0,1,2 --epochs=8" in commands
    assert f"{sweep} --models=shiftresnet20-3@cross --seeds=0,1 --epochs=8" in commands
    # Not a name that the sweep knows: a file.
    assert f"{sweep} --models=shiftresnet20-1@results/diagonal.json --seeds=0" in commands
    repeated = section(page, "## CIFAR-10: commands")
    assert "`--results=` and `--workdir=` of your own" in repeated[1]
    assert repeated[3:] == [
        "",
        "```sh",
        f"{sweep.removesuffix('0')} --models=shiftresnet20-3 --seeds=0",
        f"{sweep.removesuffix('0')} --models=resnet20 --seeds=4",
        "```",
    ]


def test_of_repeated_runs_the_last_counts(results):
    again = results[0][1]._replace(last_top1=67.5, device="GPU C")
    rows = cells(results_page([*results[0], again]), "### ShiftResNet")
    assert rows["shiftresnet20-3"][2] == "66.50 ± 1.41"
    runs = table(results_page([*results[0], again]), "## CIFAR-100: every run")
    assert [run[6] for run in runs if run[:3] == ["shiftresnet20-3", "0", "164"]] == [
        "GPU A",
        "GPU C",
    ]


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
    assert "0 of the table's 33 cells on CIFAR-100 and 0 of 24 on CIFAR-10" in page
    for title, count in (("ShiftResNet", 12), ("ResNet", 3), ("ResNet, reduced net-wise", 9)):
        rows = cells(page, f"### {title}")
        assert len(rows) == count
        assert all(row[2:4] == NOT_RUN and row[8:] == NOT_RUN for row in rows.values())
    assert "### Other networks" not in page
    assert "## CIFAR-10:" not in page
    assert page.count("None yet.") == 4


def test_command(tmp_path, page):
    (tmp_path / "100.csv").write_text(CSV)
    (tmp_path / "10.csv").write_text(CSV_10)
    diagonal = {"name": "diagonal", "direction_weights": [1, 0, 0, 0, 1, 0, 0, 0, 1]}
    (tmp_path / "diagonal.json").write_text(json.dumps(diagonal))
    target = tmp_path / "results.md"
    target.write_text("old")
    command = [sys.executable, "-m", "shift_jax.paper.results_page", f"--output={target}"]
    command += [f"--results={tmp_path / '100.csv'}", f"--cifar10={tmp_path / '10.csv'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{target}: 19 runs on CIFAR-100, 2 on CIFAR-10.\n"
    assert target.read_text(encoding="utf-8") == page.replace(
        "diagonal: weights unknown", "diagonal: 1 0 0 / 0 1 0 / 0 0 1"
    )
    assert str(tmp_path) not in page


def test_only_the_default_file_may_be_absent(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    values = flags.FlagValues()
    holder = flags.DEFINE_string("results", "results/r.csv", "", flag_values=values)
    values(["command"])
    assert rows_of_flag(holder) == []
    values(["command", "--results=none.csv"])
    with pytest.raises(InputError, match="--results=none.csv is not there"):
        rows_of_flag(holder)


def test_refuses_a_target_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="cannot be written \\(No such file or directory"):
        save_page(tmp_path / "none" / "results.md", "page")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot be written \\(Is a directory"):
        save_page(tmp_path / "folder", "page")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
