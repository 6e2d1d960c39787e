import csv
import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from shift_jax.config import quickstart, to_dict
from shift_jax.data import UnreadableImageError, load_source
from shift_jax.errors import InputError
from shift_jax.ops import shift_offsets
from shift_jax.paper.figures.contributions import channel_contributions, direction_map, find_module
from shift_jax.paper.figures.correlations import shifted_activations
from shift_jax.paper.figures.drawings import save_contributions, save_correlations
from shift_jax.paper.figures.pictures import save_picture
from shift_jax.paper.figures.section_4 import are_few, draw_figures
from shift_jax.paper.figures.trained_network import trained_network
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.runs.workdir import claim_workdir
from tests.models.small import random_variables, small_model

DIGITS = "shiftresnet20.digits"
FILES = ["figure7.png", "figure8.png", "redundant_pairs.csv"]


@pytest.fixture(scope="module")
def digits():
    return trained_network(None, DIGITS)


@pytest.fixture(scope="module")
def drawn(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "new"
    draw_figures(digits, folder, num_images=100, threshold=0.5)
    return folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_pairs_are_those_of_the_test_images(digits, drawn):
    assert names(drawn) == FILES
    with (drawn / "redundant_pairs.csv").open() as file:
        rows = list(csv.DictReader(file))
    source = load_source("digits", "test")
    chosen = [source[int(i)]["image"] for i in np.linspace(0, 359, 100).astype(int)]
    images = ((np.stack(chosen) / 255 - 0.5) / 0.5).astype(np.float32)
    activations = shifted_activations(digits.model, "group1_block1/conv2")(digits.variables, images)
    expected = np.corrcoef(np.asarray(activations, np.float64).reshape(-1, 48).T)
    (contributions,) = channel_contributions(digits.model, digits.variables, (8, 8, 1))[:1]
    offsets = contributions.offsets
    pairs = {
        (a, b): expected[a, b]
        for a in range(48)
        for b in range(a + 1, 48)
        if (offsets[a] == offsets[b]).all() and abs(expected[a, b]) > 0.5
    }
    assert len(pairs) > 3
    found = {(int(row["channel_1"]), int(row["channel_2"])): row for row in rows}
    assert found.keys() == pairs.keys()
    for pair, row in found.items():
        assert float(row["correlation"]) == pytest.approx(pairs[pair], abs=1e-4)
        assert [int(row["dy"]), int(row["dx"])] == offsets[pair[0]].tolist()
        step = "T B"[int(row["dy"]) + 1] + "L R"[int(row["dx"]) + 1]
        assert row["direction"] == (step.replace(" ", "") or "C")
        assert row["layer"] == "group1_block1/conv2"
    values = [abs(float(row["correlation"])) for row in rows]
    assert values == sorted(values, reverse=True)


@pytest.fixture
def make_run(digits, tmp_path):
    """Makes the folder of a run that ended with the shipped weights."""

    def make(**data):
        config = to_dict(quickstart())
        config["data"] |= data
        claim_workdir(tmp_path / "run", config)
        with Checkpoints(tmp_path / "run" / "checkpoints") as checkpoints:
            checkpoints.save(660, dict(digits.variables), config=config)
        return tmp_path / "run"

    return make


@pytest.mark.slow
def test_a_run_gives_what_its_weights_give(drawn, make_run, capsys):
    run = make_run()
    draw_figures(trained_network(str(run), None), run, num_images=100, threshold=0.5)
    table = "redundant_pairs.csv"
    assert (run / table).read_text() == (drawn / table).read_text()
    printed = capsys.readouterr().out
    # Of 8 × 8 each.
    assert "6,400 pixels of 100 images of test" in printed and printed.count("\n") == 3
    # A second time it replaces them.
    draw_figures(trained_network(str(run), None), run, module="group3_block1", num_images=40)
    assert (run / table).read_text() != (drawn / table).read_text()


@pytest.mark.slow
def test_figure_7_needs_no_dataset(make_run, tmp_path):
    network = trained_network(
        str(make_run(name="folder", image_size=8)), None, data_dir=str(tmp_path / "gone")
    )
    with pytest.raises(InputError, match="gone"):
        draw_figures(network, tmp_path / "out")
    assert names(tmp_path / "out") == ["figure7.png"]


def test_figure_7_shows_the_map(digits, tmp_path):
    contributions = find_module(
        channel_contributions(digits.model, digits.variables, (8, 8, 1)), None
    )
    save_contributions(tmp_path / "figure7.svg", contributions, digits.name)
    # matplotlib writes texts as outlines, and what they say in comments.
    text = (tmp_path / "figure7.svg").read_text()
    means = direction_map(contributions)
    for value in (means / means.max()).ravel():
        assert f"<!-- {value:.2f} -->" in text
    for name in ("TL", "C", "BR", "Channels, ranked in each group"):
        assert f"<!-- {name} -->" in text
    assert "shiftresnet20.digits, group1_block1/conv2 (16 → 48 → 16 channels)" in text


def test_kernel_size_5_and_directions_without_channels(tmp_path):
    model = small_model(
        "shiftresnet20", kernel_size=5, expansion=3, direction_weights=[0] + 24 * [1]
    )
    contributions = find_module(
        channel_contributions(model, random_variables(model, (8, 8, 3)), (8, 8, 3)), None
    )
    matrices = [np.eye(len(group)) for group in contributions.shift_groups]
    matrices[1][0] = matrices[1][:, 0] = np.nan
    save_contributions(tmp_path / "figure7.svg", contributions, "five")
    save_correlations(tmp_path / "figure8.svg", contributions, matrices, "five", "no images")
    for name in ("figure7.svg", "figure8.svg"):
        text = (tmp_path / name).read_text()
        for label in ("-2,-2", "0,0", "+1,0", "+2,+2"):
            assert f"<!-- {label} -->" in text
        assert text.count("<!-- none -->") == 1
    assert "over no images; gray: 1 whose activations are constant" in text


def test_colors_are_of_the_sign_and_size(digits, tmp_path):
    contributions = find_module(
        channel_contributions(digits.model, digits.variables, (8, 8, 1)), None
    )

    values = np.linspace(-0.8, 0.8, 9)
    groups = contributions.shift_groups
    matrices = [np.full((len(g),) * 2, value) for g, value in zip(groups, values, strict=True)]
    save_correlations(tmp_path / "figure8.png", contributions, matrices, "", "")
    with Image.open(tmp_path / "figure8.png") as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    # The middle of each matrix, by how often its color is met from row to row.
    codes, counts = np.unique(pixels @ [65536, 256, 1], return_counts=True)
    most = codes[np.argsort(-counts)][:10]
    colors = {tuple(code >> shift & 255 for shift in (16, 8, 0)) for code in most.tolist()}
    expected = [tuple(map(int, colormaps["RdBu_r"]((v + 1) / 2, bytes=True)[:3])) for v in values]
    assert expected[4] == min(expected, key=lambda c: -min(c)), "0 is the whitest"
    assert colors == {(255, 255, 255), *expected}


def test_offsets_that_span_too_much(tmp_path):
    (contributions, *_) = channel_contributions(
        model := small_model("shiftresnet20"), random_variables(model, (8, 8, 3)), (8, 8, 3)
    )
    with pytest.raises(InputError, match="span 13² directions"):
        save_contributions(tmp_path / "x.png", contributions._replace(kernel_size=13), "")


def test_mistakes_are_told_before_anything_is_drawn(digits, tmp_path):
    for arguments, sentence in (
        ({"module": "group4_block1"}, "shifts nothing in a module 'group4_block1'"),
        ({"threshold": 1.0}, "threshold is 1.0"),
        ({"num_images": 0}, "num_images is 0"),
    ):
        with pytest.raises(InputError, match=sentence):
            draw_figures(digits, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be created"):
        draw_figures(digits, tmp_path / "file")
    with pytest.raises(InputError, match="no split 'validation'"):
        draw_figures(digits, tmp_path / "out", split="validation")
    for workdir, weights in ((None, None), ("run", DIGITS)):
        with pytest.raises(InputError, match="Give either --workdir=DIR or --weights=NAME"):
            trained_network(workdir, weights)
    with pytest.raises(
        InputError, match="No trained weights 'shiftresnet20.digit' come .* Did you mean"
    ):
        trained_network(None, "shiftresnet20.digit")
    with pytest.raises(InputError, match="not the workdir of a run"):
        trained_network(str(tmp_path), None)


def test_images_are_spread_over_the_split_and_unreadable_ones_left_out(digits):
    class Photos(list):
        image_shape = (8, 8, 1)

        def __getitem__(self, index):
            if index == 4:
                raise UnreadableImageError("photo", "torn")
            return {"image": np.full((8, 8, 1), super().__getitem__(index), np.uint8)}

    network = dataclasses.replace(digits, open_split=lambda split: Photos(range(101)))

    def pixels(number):
        batches = list(network.images("any", number))
        assert all(batch.dtype == np.float32 for batch in batches)
        # What normalization does, undone.
        return ((np.concatenate(batches)[:, 0, 0, 0] * 0.5 + 0.5) * 255).round().tolist()

    assert pixels(5) == [0, 25, 50, 75, 100]
    assert pixels(1000) == [value for value in range(101) if value != 4]
    color = dataclasses.replace(network, mean=(0.5,) * 3)
    with pytest.raises(
        InputError, match="have 1 channels, but those of shiftresnet20.digits have 3"
    ):
        next(color.images("any", 5))


def test_pictures_are_whole_or_not_there(tmp_path):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    FigureCanvasAgg(figure)
    save_picture(figure, tmp_path / "a.png")
    first = (tmp_path / "a.png").read_bytes()
    with pytest.raises(InputError, match="unsupported image extension"):
        save_picture(figure, tmp_path / "a.txt")
    with pytest.raises(InputError, match=r"cannot be written \(No such file"):
        save_picture(figure, tmp_path / "none" / "a.png")

    def fail(path, **kwargs):
        path.touch()
        raise OSError(28, "No space left on device")

    figure.savefig = fail
    with pytest.raises(InputError, match="No space left"):
        save_picture(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == first
    assert names(tmp_path) == ["a.png"]


def test_groups_are_numbered(digits, tmp_path):
    contributions = find_module(
        channel_contributions(digits.model, digits.variables, (8, 8, 1)), None
    )

    def titles(contributions):
        matrices = [np.eye(len(group)) for group in contributions.shift_groups]
        save_correlations(tmp_path / "figure8.svg", contributions, matrices, "", "")
        return (tmp_path / "figure8.svg").read_text()

    grouped = titles(contributions)
    # The center has the channels left over too.
    for title in ("TL: 0–4", "C: 20–24, 45–47", "BR: 40–44"):
        assert f"<!-- {title} -->" in grouped
    interleaved = titles(contributions._replace(offsets=shift_offsets(48, order="interleaved")))
    assert "<!-- TL: 0, 9 … 36 -->" in interleaved


def test_few_images_or_pixels(digits):
    module = find_module(channel_contributions(digits.model, digits.variables, (8, 8, 1)), None)
    assert max(len(group) for group in module.shift_groups) == 8
    assert are_few(99, 10**6, module) and are_few(1000, 799, module)
    assert not are_few(100, 800, module)


def test_command(tmp_path):
    command = [sys.executable, "-m", "shift_jax.commands.figures", f"--weights={DIGITS}"]
    command += ["--num_images=20", f"--output={tmp_path}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == [
        str(tmp_path / name) for name in FILES
    ]
    assert names(tmp_path) == FILES
    assert "from 1,280 pixels of 20 images, too few to tell" in done.stderr
