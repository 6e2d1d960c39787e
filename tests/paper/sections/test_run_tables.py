from shift_jax.paper.results_page import results_page
from tests.paper.pages import cells, row, section, table


def test_other_recipes_and_trained_shifts_stand_alone(page):
    heading = "## CIFAR-100: other recipes and trained shifts"
    assert table(page, heading) == [
        row("shiftresnet20-3|short|fixed|164|101,492|71.00 ± 1.41|72.00 ± 1.41|2|60.1|GPU A"),
        row("shiftresnet20-3|authors|active|8|101,492|50.00|51.00|1|5.0|CPU"),
        row("shiftresnet20-3@cross|authors|sparse|8|101,492|52.00|53.00|1|5.0|CPU"),
    ]


def test_allocations_are_compared_over_the_same_seeds_and_epochs(page):
    rows = table(page, "## CIFAR-100: other shift allocations")
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
    lines = section(page, "## CIFAR-100: other shift allocations")
    assert "- cross: 0 1 0 / 1 1 1 / 0 1 0" in lines
    assert "- even: 1 1 1 / 1 1 1 / 1 1 1" in lines
    assert "- diagonal: weights unknown" in lines
    known = results_page(*results, {"diagonal": (1, 0, 0, 0, 0.94321, 0, 0, 0, 1)})
    assert "- diagonal: 1 0 0 / 0 0.9432 0 / 0 0 1\n" in known


def test_every_run_in_order(page):
    lines = table(page, "## CIFAR-100: every run")
    assert len(lines) == 23
    assert lines[0] == row(
        "shiftresnet20-1|authors|fixed|0|164|5,953,792|54.04|54.06|20.5|GPU A|abc1234"
    )
    assert [line[:5] for line in lines[1:7]] == [
        row("shiftresnet20-1@diagonal|authors|fixed|0|164"),
        row("shiftresnet20-3|authors|fixed|0|164"),
        row("shiftresnet20-3|authors|fixed|1|164"),
        row("shiftresnet20-3|short|fixed|1|164"),
        row("shiftresnet20-3|short|fixed|5|164"),
        row("shiftresnet20-3|authors|active|0|8"),
    ]
    assert lines[-1][0] == "resnet20_projection-module-1"
    assert row(
        "shiftresnet56-9|authors|fixed|1|164|132,831,488|72.20|72.50|1,234.5|GPU B, 2¦3"
    ) in [line[:10] for line in lines]


def test_commands(page):
    commands = section(page, "## CIFAR-100: commands")
    sweep = "shift-jax sweep --dataset=cifar100"
    assert f"{sweep} --models=shiftresnet20-3 --seeds=0,1" in commands
    assert f"{sweep} --models=shiftresnet20-3 --seeds=0,1,2 --epochs=8" in commands
    assert f"{sweep} --models=shiftresnet20-3@cross --seeds=0,1 --epochs=8" in commands
    # Not a name that the sweep knows: a file.
    assert f"{sweep} --models=shiftresnet20-1@results/diagonal.json --seeds=0" in commands
    assert sum(line.startswith("shift-jax") for line in commands) == 14
    repeated = section(page, "## CIFAR-10: commands")
    assert "a `--results=` and a `--workdir=` of your own" in repeated[1]
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
    assert [run[9] for run in runs if run[:5] == row("shiftresnet20-3|authors|fixed|0|164")] == [
        "GPU A",
        "GPU C",
    ]
