import errno
import json
import os
import re
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from shift_jax import create_model, load_pretrained, stylize
from shift_jax.data.decode import photo_files
from shift_jax.errors import InputError
from shift_jax.models import stylizer, tiled_style
from shift_jax.models.stylizer import Stylizer, load_style, style_names
from shift_jax.training import cli
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.runs.workdir import claim_workdir
from shift_jax.weights import shipped
from shift_jax.weights.safetensors_file import sha256, write_safetensors
from tests.data.photos import photos
from tests.models.small import quick_jit, random_variables

NAME = "shift_style_transformer"


def style_variables(seed=0):
    """Of a style transformer whose pixels span about 0..255."""
    variables = random_variables(create_model(NAME), (16, 16, 3), seed)
    last = variables["params"]["up3"]["conv"]
    last["kernel"] *= 30
    last["bias"] += 128
    return variables


def write_run(folder, variables, **config):
    config = {"task": "style", "model": {"name": NAME, "dtype": "bfloat16"}} | config
    claim_workdir(folder, config)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(7, variables, config=config)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of two runs with different weights."""
    root = tmp_path_factory.mktemp("runs")
    return [write_run(root / name, style_variables(i)) for i, name in enumerate(("mosaic", "wave"))]


@pytest.fixture
def photo(tmp_path):
    # The smallest size: nothing here depends on it, and one is quickest to compile.
    return write_photo(tmp_path / "photo.png")


def write_photo(path, size=(5, 5), seed=0):
    path.parent.mkdir(exist_ok=True, parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image)


def call(*arguments):
    stylize.main([str(each) for each in arguments])


@pytest.fixture
def shipped_styles(tmp_path, monkeypatch):
    """A folder of weight files with two styles, stored as bfloat16."""
    folder = tmp_path / "files"
    folder.mkdir()
    for seed, tag in enumerate(("mosaic", "wave")):
        path = folder / f"{NAME}.{tag}.safetensors"
        rounded = jax.tree.map(lambda x: x.astype(ml_dtypes.bfloat16), style_variables(seed))
        write_safetensors(path, rounded, {"config": "{}"})
        record = {
            "arguments": {},
            "num_classes": None,
            "image_shape": [256, 256, 3],
            "mean": [0.0] * 3,
            "std": [1 / 255] * 3,
            "trained_on": "nothing",
            "recipe": "none",
            "license": "Apache-2.0",
            "source": "this test",
            "sha256": sha256(path),
        }
        path.with_suffix(".json").write_text(json.dumps(record))
    monkeypatch.setattr(shipped, "_FILES", folder)
    shipped.shipped_weights.cache_clear()
    yield
    shipped.shipped_weights.cache_clear()


def painted_by_hand(photo):
    """What the first run's network makes of a photo that goes on for 32 mirrored pixels."""
    image = np.pad(pixels_of(photo), [(32, 32), (32, 32), (0, 0)], "symmetric")
    output = quick_jit(create_model(NAME).apply)(style_variables(), image[None].astype(np.float32))
    return np.rint(output)[0, 32:-32, 32:-32].clip(0, 255)


def test_a_photo_is_what_the_network_makes_of_it(runs, photo, tmp_path, capsys):
    output = tmp_path / "out.png"
    call(photo, f"--model={runs[0]}", f"--output={output}")
    expected = painted_by_hand(photo)[:5, :5]
    assert expected.std() > 20
    np.testing.assert_allclose(pixels_of(output).astype(float), expected, atol=1)
    printed = capsys.readouterr().out
    assert re.search(r"5×5 pixels in \d+\.\d s, compiling included; written to", printed), printed

    checkpoint = runs[0] / "checkpoints" / "7"
    call(photo, f"--model={checkpoint}", f"--output={tmp_path / 'same.png'}")
    np.testing.assert_array_equal(pixels_of(tmp_path / "same.png"), pixels_of(output))


def test_alpha_and_colours_are_kept(runs, tmp_path):
    grey = np.full((5, 5), 77, np.uint8)
    grey[1:3] = 200
    picture = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(grey.T.copy())])
    picture.save(tmp_path / "grey.png")
    arguments = (tmp_path / "grey.png", f"--model={runs[0]}")
    call(*arguments, f"--output={tmp_path / 'a.png'}")
    call(*arguments, f"--output={tmp_path / 'b.png'}", "--preserve_color=true")
    colored, plain = pixels_of(tmp_path / "a.png"), pixels_of(tmp_path / "b.png")
    np.testing.assert_array_equal(colored[..., 3], grey.T)
    np.testing.assert_array_equal(plain[..., 3], grey.T)
    assert np.ptp(colored[..., :3], axis=-1).max() > 30
    # Without colours in the photo there are none in the picture, but for rounding.
    assert np.ptp(plain[..., :3].astype(int), axis=-1).max() <= 2
    assert plain[..., :3].std() > 5


def test_a_photo_of_one_pixel(runs, tmp_path):
    pixel = write_photo(tmp_path / "pixel.png", (1, 1))
    call(pixel, f"--model={runs[0]}", f"--output={tmp_path / 'out.png'}")
    expected = painted_by_hand(pixel)[:1, :1]
    np.testing.assert_allclose(pixels_of(tmp_path / "out.png").astype(float), expected, atol=1)


def test_large_photos_are_taken_in_tiles(monkeypatch):
    sizes = []

    def tiled(model, variables, image, tile_size, progress):
        sizes.append((image.shape, tile_size))
        return np.full((-(-image.shape[0] // 4) * 4, image.shape[1], 3), 300.0)

    monkeypatch.setattr(stylizer, "stylize_by_tiles", tiled)
    monkeypatch.setattr(stylizer, "_whole", lambda *_: np.full((1, 320, 320, 3), 7.0))
    model = create_model(NAME)
    automatic, chosen = Stylizer(model, {}), Stylizer(model, {}, tile_size=64)
    assert (automatic(np.zeros((256, 256, 3), np.uint8)) == 7).all()
    painted = automatic(np.zeros((257, 256, 3), np.uint8))
    assert painted.shape == (257, 256, 3) and (painted == 255).all()
    # A panorama.
    assert automatic(np.zeros((2, 600_000, 3), np.uint8)).shape == (2, 600_000, 3)
    chosen(np.zeros((64, 64, 3), np.uint8))
    chosen(np.zeros((8, 68, 3), np.uint8))
    assert sizes == [
        ((321, 320, 3), tiled_style.TILE_SIZE),
        ((66, 600_064, 3), tiled_style.TILE_SIZE),
        ((72, 132, 3), 64),
    ]
    # A GPU has the memory, and tiles would go to and fro.
    monkeypatch.setattr(stylizer.jax, "default_backend", lambda: "gpu")
    assert automatic.takes_whole(1000, 1000) and not automatic.takes_whole(1001, 1000)


def test_a_network_that_failed_is_not_painted_with(monkeypatch):
    monkeypatch.setattr(stylizer, "_whole", lambda *_: np.full((1, 72, 72, 3), np.nan))
    with pytest.raises(InputError, match="colours that are not finite"):
        Stylizer(create_model(NAME), {})(np.zeros((8, 8, 3), np.uint8))


def test_several_styles_make_a_contact_sheet(runs, photo, tmp_path, capsys):
    models = [f"--model={run}" for run in runs]
    call(photo, *models, f"--output={tmp_path / 'sheet.png'}")
    singles = []
    for index, model in enumerate(models):
        call(photo, model, f"--output={tmp_path / f'{index}.png'}")
        singles.append(pixels_of(tmp_path / f"{index}.png"))
    sheet = pixels_of(tmp_path / "sheet.png")
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (5, 5, 3)).reshape(-1, 5, 5, 3)
    for picture in (pixels_of(photo), *singles):
        assert (windows == picture).all((1, 2, 3)).sum() == 1
    assert (singles[0] != singles[1]).any()
    assert "in each of 2 styles" in capsys.readouterr().out


def test_a_folder_is_mirrored_and_what_is_no_photo_told_of(runs, tmp_path, capsys):
    frames, output = tmp_path / "frames", tmp_path / "painted"
    names = ["0001.png", "0002.png", "deep/0003.png"]
    for seed, name in enumerate(names):
        write_photo(frames / name, seed=seed)
    (frames / "0009.jpg").write_bytes(b"no photo")
    with pytest.raises(InputError, match="1 of the 4 photos in .* were left out"):
        call(frames, f"--model={runs[0]}", f"--output={output}")
    found = sorted(str(p.relative_to(output)) for p in output.rglob("*") if p.is_file())
    assert found == names
    captured = capsys.readouterr()
    assert "0009.jpg can not be read as an image" in captured.err
    assert "3 photos, 0.0 megapixels in" in captured.out
    call(frames / names[2], f"--model={runs[0]}", f"--output={tmp_path / 'one.png'}")
    np.testing.assert_array_equal(pixels_of(output / names[2]), pixels_of(tmp_path / "one.png"))

    (frames / "0009.jpg").unlink()
    call(frames, *[f"--model={run}" for run in runs], f"--output={tmp_path / 'both'}")
    for run in runs:
        assert (tmp_path / "both" / run.name / names[2]).is_file()
    first = tmp_path / "both" / runs[0].name / names[0]
    np.testing.assert_array_equal(pixels_of(first), pixels_of(output / names[0]))


def test_shipped_styles_are_found_by_name(shipped_styles, photo, tmp_path, capsys):
    call("--style=?")
    assert capsys.readouterr().out.split() == ["mosaic", "wave"]
    _, variables = load_pretrained(NAME, tag="wave")
    kernel = variables["params"]["up2"]["conv"]["kernel"]
    expected = style_variables(1)["params"]["up2"]["conv"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, expected.astype(ml_dtypes.bfloat16).astype(np.float32))
    for name in ("mosaic", "wave"):
        call(photo, f"--style={name}", f"--output={tmp_path / f'{name}.png'}")
    assert (pixels_of(tmp_path / "mosaic.png") != pixels_of(tmp_path / "wave.png")).any()
    call(photo, "--style=mosaic,wave", f"--output={tmp_path / 'sheet.png'}")
    assert pixels_of(tmp_path / "sheet.png").shape[1] > 3 * 40
    with pytest.raises(InputError, match=r"no style 'mosiac', .* mosaic, wave.*mean 'mosaic'"):
        load_style("mosiac")


def test_the_styles_of_the_package_paint_a_real_photo():
    photo = photos()[0][100:324:2, 200:424:2]
    grey = photo.mean(-1)
    painted = {name: load_style(name)(photo) for name in style_names()}
    assert sorted(painted) == ["candy", "mosaic"]
    for name, picture in painted.items():
        assert np.corrcoef(picture.mean(-1).ravel(), grey.ravel())[0, 1] > 0.6, name
        assert np.abs(picture.astype(int) - photo).mean() > 15, name
        for side in range(4):
            steps = np.abs(np.diff(np.rot90(picture, side).astype(int), axis=1)).mean((0, 2))
            # No frame: at the border neighbours differ no more than elsewhere.
            assert steps[0] < 1.4 * steps[8:-8].mean(), (name, side)
    difference = painted["candy"].astype(int) - painted["mosaic"]
    assert np.abs(difference).mean() > 15


def test_without_the_extra_for_training(tmp_path):
    photo = write_photo(tmp_path / "photo.png")
    code = (
        "import resource, runpy, sys\n"
        "for name in ('ml_collections', 'clu', 'grain', 'matplotlib', 'sklearn', 'tensorflow',\n"
        "             'tensorflow_datasets'):\n"
        "    sys.modules[name] = None\n"
        "sys.argv = ['stylize', *sys.argv[1:]]\n"
        "try:\n"
        "    runpy.run_module('shift_jax.stylize', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0, end.code\n"
        # A disk with room for ten bytes.
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))\n"
        "sys.argv[-1] += '.full.png'\n"
        "runpy.run_module('shift_jax.stylize', run_name='__main__')\n"
    )
    arguments = [str(photo), "--style=mosaic", f"--output={tmp_path / 'painted.png'}"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    full = f"error: {tmp_path / 'painted.png.full.png'} cannot be written (File too large): make"
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(full), done.stderr
    assert "goes on" not in done.stderr and "Traceback" not in done.stderr
    assert pixels_of(tmp_path / "painted.png").shape == (5, 5, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["painted.png", "photo.png"]


class Negative:
    """Paints like a network that has learned to swap light and dark."""

    layers = 1
    calls = 0

    def takes_whole(self, height, width):
        return True

    def __call__(self, pixels, progress=None):
        Negative.calls += 1
        return 255 - pixels


@pytest.fixture
def quick_styles(monkeypatch):
    """Lets every name be a style that costs nothing."""
    monkeypatch.setattr(stylizer, "load_style", lambda *_: Negative())
    monkeypatch.setattr(Negative, "calls", 0)


def test_the_speed_is_told_of_photos_that_take_time(quick_styles, tmp_path, capsys):
    large = write_photo(tmp_path / "large.png", (250, 400))
    call(large, "--style=a", f"--output={tmp_path / 'out.png'}")
    printed = capsys.readouterr().out
    assert re.search(r"400×250 pixels in \d+\.\d s, \d+\.\d\d s per megapixel", printed), printed
    np.testing.assert_array_equal(pixels_of(tmp_path / "out.png"), 255 - pixels_of(large))


def test_names_of_any_length(quick_styles, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    longest, too_long = f"{'ö' * 125}o.png", f"{'o' * 252}.png"
    call(photo, "--style=a", f"--output={longest}")
    assert pixels_of(tmp_path / longest).shape == (5, 5, 3)
    for arguments, sentence in [
        ((photo, f"--output={too_long}"), "cannot be written .File name too long.: name another"),
        ((too_long, "--output=o.png"), "There is no photo o+"),
        ((tmp_path, f"--output=../{too_long}"), "cannot be written .File name too long.: name"),
        ((photo, f"--output={photo}/o.png"), "photo.png/o.png cannot be written .Not a dir"),
        ((tmp_path, f"--output=../{too_long}/painted"), "The folder of .* does not exist"),
    ]:
        with pytest.raises(InputError, match=sentence):
            call("--style=a", *arguments)
    with pytest.raises(InputError, match="There is no folder o+.png: name that of a run"):
        call(photo, f"--model={too_long}", "--output=o.png")
    assert Negative.calls == 1


def test_files_where_folders_are_to_be_written(quick_styles, tmp_path, capsys):
    frames, output = tmp_path / "frames", tmp_path / "painted"
    write_photo(frames / "deep" / "a.jpg" / "b.png")
    write_photo(frames / "c.png")
    output.mkdir()
    (output / "mosaic").touch()
    with pytest.raises(InputError, match=r"painted/mosaic is a file, expected a folder to write"):
        call(frames, "--style=wave,mosaic", f"--output={output}")
    assert Negative.calls == 0
    (output / "deep").mkdir()
    (output / "deep" / "a.jpg").touch()
    with pytest.raises(InputError, match="1 of the 2 photos"):
        call(frames, "--style=wave", f"--output={output}")
    captured = capsys.readouterr()
    assert re.search(r"left out: .*a.jpg/b.png cannot be written \(", captured.err)
    assert (output / "c.png").is_file() and "1 photos, " in captured.out


def test_photos_of_kinds_that_are_not_read_are_told_of(quick_styles, tmp_path, capsys):
    frames = tmp_path / "frames"
    write_photo(frames / "a.png")
    for name in ("b.HEIC", "deep/c.heic", "d.nef", "notes.txt", ".e.heic"):
        (frames / name).parent.mkdir(exist_ok=True)
        (frames / name).touch()
    with pytest.raises(InputError, match="3 of the 4 photos in .* were left out"):
        call(frames, "--style=a", f"--output={tmp_path / 'painted'}")
    captured = capsys.readouterr()
    assert "left out: 3 photos of kinds that are not read (.heic, .nef): convert" in captured.err
    assert "1 photos, 0.0 megapixels" in captured.out


def test_a_disk_that_is_full_keeps_back_nothing(quick_styles, tmp_path, monkeypatch, capsys):
    frames = tmp_path / "frames"
    for name in ("a.png", "b.png", "d.png"):
        write_photo(frames / name)
    (frames / "a.jpg").write_bytes(b"no photo")
    replace = os.replace

    def full(old, new):
        if new.name == "b.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(old, new)

    monkeypatch.setattr(photo_files.os, "replace", full)
    sentence = r"painted/b.png cannot be written \(No space left on device\): make room"
    with pytest.raises(cli.StorageError, match=sentence):
        call(frames, "--style=a", f"--output={tmp_path / 'painted'}")
    captured = capsys.readouterr()
    assert "a.jpg can not be read as an image" in captured.err
    assert "1 photos, 0.0 megapixels" in captured.out
    assert [path.name for path in (tmp_path / "painted").iterdir()] == ["a.png"]


def test_a_network_that_failed_stops_a_folder_at_once(quick_styles, tmp_path, monkeypatch, capsys):
    for name in ("a.png", "b.png"):
        write_photo(tmp_path / "frames" / name)

    def fail(*_):
        raise InputError("The network makes colours that are not finite.")

    monkeypatch.setattr(Negative, "__call__", fail)
    with pytest.raises(InputError, match="^wave: The network makes colours that are not finite"):
        call(tmp_path / "frames", "--style=wave", f"--output={tmp_path / 'painted'}")
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_contact_sheet_too_large_for_its_format_is_refused_first(
    quick_styles, photo, tmp_path, monkeypatch
):
    monkeypatch.setitem(photo_files._LONGEST, "WEBP", 100)
    with pytest.raises(InputError, match="would be .* pixels long and WEBP holds 100 at most"):
        call(photo, "--style=a,a_second,a_third", f"--output={tmp_path / 'o.webp'}")
    assert Negative.calls == 0


def test_weights_of_another_network(runs, photo, tmp_path):
    output = f"--output={tmp_path / 'out.png'}"
    digits = {"task": "classification", "model": {"name": "shiftresnet20", "expansion": 3.0}}
    other = write_run(tmp_path / "digits", {"params": {"x": np.zeros(3)}}, **digits)
    with pytest.raises(InputError, match="weights of another network, shiftresnet20: expected a"):
        call(photo, f"--model={other}", output)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="is not the workdir of a run"):
        call(photo, f"--model={tmp_path / 'empty'}", output)
    claim_workdir(tmp_path / "empty", {"task": "style"})
    with pytest.raises(InputError, match="There is no checkpoint in"):
        call(photo, f"--model={tmp_path / 'empty'}", output)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["P", "--style=a"], "Name one photo or a folder"),
        (["P", "--output=o.png"], "Name one photo or a folder"),
        (["P", "P", "--style=a", "--output=o.png"], "Name one photo or a folder"),
        (["P", "--style=a", "--output=o.png", "--maxsize=3"], "no flag --maxsize.*'max_size'"),
        (["P", "--style=a", "--output=o.png", "--max_size=-1"], "max_size is '-1', expected"),
        (["P", "--style=a", "--output=o.png", "--tile_size=8"], "at least 16, or 0"),
        (["P", "--style=a", "--output=o.png", "--preserve_color=1"], "preserve_color is '1'"),
        (["P", "--style=a", "--output=none/o.png"], "folder of none/o.png does not exist"),
        (["P", "--style=a", "--output=o.doc"], "does not end like an image"),
        (["P", "--style=a", "--output=o.h5"], "does not end like an image"),
        (["P", "--style", "a", "--output=o.png"], "'--style' has no value: expected --style=VALUE"),
        (["P", "--style=a", "--output=P"], "is the photo itself"),
        (["missing.jpg", "--style=a", "--output=o.png"], "There is no photo missing.jpg"),
        (["D", "--style=a", "--output=D"], "is in .* itself"),
        (["D", "--style=a", "--output=D/painted"], "is in .* itself"),
        (["D", "--style=a", "--output=../none/o"], "folder of --output=../none/o does not exist"),
        (["D/empty", "--style=a", "--output=D"], "holds no images"),
    ],
)
def test_bad_command_lines(arguments, sentence, photo, monkeypatch):
    (photo.parent / "empty").mkdir()
    monkeypatch.chdir(photo.parent)
    places = {"P": str(photo), "D": str(photo.parent)}
    replaced = [re.sub(r"(?<![\w.])[PD](?![\w.])", lambda m: places[m[0]], a) for a in arguments]
    with pytest.raises(InputError, match=sentence):
        call(*replaced)
