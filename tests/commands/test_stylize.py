import json
import re
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from PIL import Image

from shift_jax import create_model, load_pretrained
from shift_jax.errors import InputError
from shift_jax.models.stylizer import load_style
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.runs.workdir import claim_workdir
from shift_jax.weights import shipped
from shift_jax.weights.safetensors_file import sha256, write_safetensors
from tests.commands.call import call as call_command
from tests.data.photos import pixels_of, write_photo
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
    return write_photo(tmp_path / "photo.png")


def call(*arguments):
    call_command("stylize", [str(each) for each in arguments])


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
    assert "0009.jpg cannot be read as an image" in captured.err
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


def test_without_the_extra_for_training(tmp_path):
    photo = write_photo(tmp_path / "photo.png")
    code = (
        "import resource, sys\n"
        "from shift_jax.commands.dispatch import main\n"
        "for name in ('ml_collections', 'clu', 'grain', 'matplotlib', 'sklearn', 'tensorflow',\n"
        "             'tensorflow_datasets'):\n"
        "    sys.modules[name] = None\n"
        "assert main(['stylize', *sys.argv[1:]]) == 0\n"
        # A disk with room for ten bytes.
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, resource.RLIM_INFINITY))\n"
        "sys.exit(main(['stylize', *sys.argv[1:-1], sys.argv[-1] + '.full.png']))\n"
    )
    arguments = [str(photo), "--style=mosaic", f"--output={tmp_path / 'painted.png'}"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    full = f"error: {tmp_path / 'painted.png.full.png'} cannot be written (File too large): make"
    assert done.returncode == 1 and done.stderr.splitlines()[-1].startswith(full), done.stderr
    assert "goes on" not in done.stderr and "Traceback" not in done.stderr
    assert pixels_of(tmp_path / "painted.png").shape == (5, 5, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["painted.png", "photo.png"]


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
        (["P", "--style=a", "--output=o.doc"], "has an unsupported image extension"),
        (["P", "--style=a", "--output=o.h5"], "has an unsupported image extension"),
        (["P", "--output=o.png", "--style"], "'--style' has no value: expected --style=VALUE"),
        (["P", "--style", "--output=o.png"], "'--style' has no value: expected --style=VALUE"),
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
