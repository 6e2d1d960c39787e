import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from shift_jax.errors import InputError
from shift_jax.paper.figures.accuracy import draw_both, save_figure
from shift_jax.paper.figures.curves import Point, our_curves, paper_curves
from shift_jax.paper.sweep.results_file import Result, append_results

BLUE, VERMILLION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)


def run(model, expansion, top1, *, reduction="", seed=0, epochs=164.0, allocation="", params=1000):
    return Result(
        model,
        expansion,
        reduction,
        allocation,
        seed,
        params,
        params * 100,
        top1,
        top1 + 1,
        epochs,
        1.5,
        "CPU",
        "abc",
    )


def by_name(curves):
    return {(curve.family, curve.depth, curve.epochs): curve.points for curve in curves}


def test_the_papers_points():
    curves = by_name(paper_curves())
    assert list(curves) == [
        (family, depth, None) for depth in (20, 56, 110) for family in ("ShiftResNet", "ResNet")
    ]
    top1 = {key: [point.top1 for point in points] for key, points in curves.items()}
    assert top1["ShiftResNet", 20, None] == [55.62, 62.32, 68.64, 69.82]
    # Module-wise at depth 20, net-wise at depth 110; at depth 56 first the one, then the other.
    assert top1["ResNet", 20, None] == [52.40, 60.61, 64.27, 66.25]
    assert top1["ResNet", 56, None] == [56.78, 64.49, 67.45, 69.27]
    assert top1["ResNet", 110, None] == [60.44, 66.61, 68.87, 72.11]
    assert curves["ShiftResNet", 20, None][1] == Point(101492, 16439552, 62.32, 62.32, 62.32)
    # The better one's own counts.
    assert [point.params for point in curves["ResNet", 56, None]] == [
        *(109938, 304868, 586990, 861620)
    ]


def test_ours_are_means_of_the_last_epoch():
    curves = by_name(
        our_curves([run("shiftresnet20", 3.0, top1, seed=i) for i, top1 in enumerate((60, 61, 65))])
    )
    point = Point(1000, 100_000, 62, 60, 65)
    assert curves == {("ShiftResNet", 20, 164): (None, point, None, None)}


def test_ours_have_the_better_of_two_reductions_and_stand_in_order():
    curves = by_name(
        our_curves(
            [
                run("resnet20", None, 66.0, params=9),
                run("resnet20", 3.0, 60.0, reduction="net", params=4),
                run("resnet20", 3.0, 59.0, reduction="module", params=3),
                run("resnet20", 1.0, 51.0, reduction="module", params=1),
                run("resnet20", 1.0, 50.0, reduction="net", params=2),
            ]
        )
    )
    (points,) = curves.values()
    # None where nothing was run, so that no line joins what lies around it.
    assert [point and (point.params, point.top1) for point in points] == [
        *((1, 51), (4, 60), None, (9, 66))
    ]


def test_one_of_two_reductions_is_not_the_better_one():
    results = [
        run("resnet20", 1.0, 51.0, reduction="module"),
        run("resnet20", 3.0, 60.0, reduction="net"),
        run("resnet20", 6.0, 64.0, reduction="net"),
        run("resnet20", 6.0, 63.0, reduction="module"),
        run("resnet20", None, 66.0),
    ]
    (points,) = by_name(our_curves(results)).values()
    assert [point.reduction for point in points] == ["module-wise", "net-wise", "", ""]


def test_each_schedule_has_its_curve():
    curves = our_curves(
        [run("shiftresnet20", 1.0, 55.0), run("shiftresnet20", 1.0, 30.0, epochs=8.0)]
    )
    assert [(c.epochs, c.points[0].top1) for c in curves] == [(8, 30), (164, 55)]


def test_other_networks_are_left_out():
    assert not our_curves(
        [
            run("shiftresnet20", 1.0, 55.0, allocation="cross"),
            run("resnet20_projection", 1.0, 55.0, reduction="module"),
            run("depthwiseresnet20", 3.0, 55.0),
            run("shiftresnet20", 2.0, 55.0),
            run("shiftresnet20", 1.0, 70.0)._replace(recipe="short"),
            run("shiftresnet20", 1.0, 70.0)._replace(shift="active"),
        ]
    )


def svg_texts(path, results, quantity="params"):
    save_figure(path, [*paper_curves(), *our_curves(results)], quantity)
    # matplotlib writes texts as outlines, and what they say in comments.
    lines = path.read_text().splitlines()
    return {line.strip()[5:-4] for line in lines if line.strip().startswith("<!-- ")}


def test_the_legend_tells_what_is_there(tmp_path):
    paper = svg_texts(tmp_path / "a.svg", [])
    assert {
        "ShiftResNet, paper, best epoch",
        "ResNet, paper, best epoch",
        "depth 110",
        "CIFAR-100 test top-1, %",
        "Parameters (100 classes), logarithmic",
    } <= paper
    assert not any("ours" in text.lower() or "seeds" in text for text in paper)
    runs = [
        run("shiftresnet20", 1.0, 55.0),
        run("shiftresnet20", 1.0, 55.5, seed=1),
        run("shiftresnet20", 1.0, 30.0, epochs=8.0),
        run("resnet20", 1.0, 28.0, epochs=8.0, reduction="net"),
    ]
    ours = svg_texts(tmp_path / "a.svg", runs, "macs")
    assert ours - paper >= {
        "ShiftResNet, ours, last epoch",
        "ResNet, ours, last epoch",
        "E = 1",
        "E = 1, net-wise",
        "Ours, 8 epochs instead of 164",
        "mean of the seeds, lowest and highest",
        "True MACs (multiply-accumulates of one image), logarithmic",
    }


def test_points_of_a_whole_row_need_no_name(tmp_path):
    whole = [run("shiftresnet20", float(e), 50.0 + e, params=1000 * e) for e in (1, 3, 6, 9)]
    assert not any(text.startswith("E =") for text in svg_texts(tmp_path / "a.svg", whole))


def test_short_schedules_do_not_stretch_the_axis(tmp_path):
    texts = svg_texts(tmp_path / "a.svg", [run("shiftresnet20", 1.0, 20.0, epochs=4.0)])
    # Of the axis from 52 to 74; that of the short ones has no 30 either.
    assert "55" in texts and "30" not in texts


def test_a_panel_for_each_of_the_longest_schedules_that_compare(tmp_path):
    def panels(schedules):
        runs = [run("shiftresnet20", 1.0, 20.0 + e, epochs=float(e)) for e in (1, 2, 4, 8, 16)]
        runs += [run("resnet20", 1.0, 10.0, epochs=float(e), reduction="net") for e in schedules]
        texts = svg_texts(tmp_path / "a.svg", runs)
        return {text for text in texts if text.startswith("Ours, ")}

    def titles(*names):
        return {f"Ours, {name} instead of 164" for name in names}

    assert panels([]) == titles("16 epochs", "8 epochs", "4 epochs")
    assert panels([1, 2]) == titles("2 epochs", "1 epoch")
    assert panels([1, 2, 4, 8]) == titles("8 epochs", "4 epochs", "2 epochs")


def pixels(path, color):
    with Image.open(path) as image:
        return int((np.asarray(image.convert("RGB")) == color).all(axis=-1).sum())


def test_ours_are_in_color(tmp_path):
    def drawn(epochs):
        results = [run("shiftresnet20", 1.0, 55.0, epochs=epochs, params=100_000)]
        save_figure(tmp_path / "a.png", [*paper_curves(), *our_curves(results)], "params")
        return pixels(tmp_path / "a.png", BLUE)

    assert drawn(164.0) > 50 and drawn(8.0) > 50
    assert pixels(tmp_path / "a.png", VERMILLION) == 0
    with Image.open(tmp_path / "a.png") as image:
        assert image.width >= 1000


def test_refuses(tmp_path):
    with pytest.raises(InputError, match="unsupported image extension"):
        save_figure(tmp_path / "a.txt", paper_curves(), "params")
    with pytest.raises(InputError, match="cannot be written"):
        save_figure(tmp_path / "none" / "a.png", paper_curves(), "params")


def test_one_command_draws_both(tmp_path):
    append_results(tmp_path / "r.csv", [run("resnet20", None, 66.0, params=278_324)])
    folder = tmp_path / "docs" / "pictures"
    command = [sys.executable, "-m", "shift_jax.commands.accuracy_figures"]
    command += [f"--results={tmp_path / 'r.csv'}", f"--output={folder}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(folder / "figure4.png"), str(folder / "figure5.png")]
    assert sorted(path.name for path in folder.iterdir()) == ["figure4.png", "figure5.png"]
    assert pixels(folder / "figure4.png", VERMILLION) > 50
    assert (folder / "figure4.png").read_bytes() != (folder / "figure5.png").read_bytes()


def test_says_when_there_is_no_run(tmp_path, capsys):
    draw_both([run("depthwiseresnet20", 3.0, 55.0)], tmp_path)
    assert "There is no run of these networks yet" in capsys.readouterr().out
    assert pixels(tmp_path / "figure5.png", BLUE) == 0


def test_refuses_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot be created \(File exists\)"):
        draw_both([], tmp_path / "file")
