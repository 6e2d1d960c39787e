import csv
import json
import os
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from shift_jax import data, load_pretrained, model_record
from shift_jax.config import to_dict
from shift_jax.config.experiment import ClassificationConfig
from shift_jax.errors import InputError
from shift_jax.models import classifier
from shift_jax.tasks import prediction
from shift_jax.training.runs.checkpoints import Checkpoints
from shift_jax.training.runs.workdir import claim_workdir
from tests.commands.call import call as call_command
from tests.data.photos import photos, pixels_of, write_photo

DIGITS = "--weights=shiftresnet20.digits"

QUICK_SOFTMAX = jax.jit(
    classifier._softmax.__wrapped__,
    static_argnames="model",
    compiler_options={"xla_backend_optimization_level": 0},
)


@pytest.fixture(autouse=True)
def quick_to_compile(monkeypatch):
    monkeypatch.setattr(classifier, "_softmax", QUICK_SOFTMAX)


def call(*arguments):
    call_command("predict", [str(each) for each in arguments])


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Twelve of scikit-learn's digits as files, named after what they show."""
    folder = tmp_path_factory.mktemp("digits")
    source = data.load_source("digits", "test")
    for index in range(12):
        example = source[index]
        Image.fromarray(example["image"][..., 0]).save(
            folder / f"{index:02}_is_{example['label']}.png"
        )
    return folder


def classification_config():
    config = ClassificationConfig()
    config.model.name = "shiftresnet20"
    config.model.arguments = {"expansion": 3.0}
    config.data.name = "digits"
    return to_dict(config)


def write_run(folder, variables, config=None, **training):
    config = config or classification_config()
    claim_workdir(folder, config)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(7, variables, config=config, training=training)
    return folder


def test_digits_are_told_batch_by_batch(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prediction, "_BATCH_SIZE", 5)
    call(digits, DIGITS, f"--output={tmp_path / 'classes.json'}", "--top=3")
    assert capsys.readouterr().out == f"12 photos; written to {tmp_path / 'classes.json'}\n"
    told = json.loads((tmp_path / "classes.json").read_text())
    files = sorted(str(path) for path in digits.iterdir())
    assert [each["file"] for each in told] == files
    for each in told:
        classes = each["top"]
        assert len(classes) == 3 and classes[0]["label"] == classes[0]["name"] == each["file"][-5]
        probabilities = [one["probability"] for one in classes]
        assert probabilities == sorted(probabilities, reverse=True)

    # By hand.
    (record,) = (each for each in model_record("shiftresnet20").weights if each.tag == "digits")
    model, variables = load_pretrained("shiftresnet20.digits")
    images = np.stack([data.preprocessor(record)(pixels_of(file)) for file in files])
    expected = np.asarray(jax.nn.softmax(jax.jit(model.apply)(variables, images)))
    found = [each["top"][0]["probability"] for each in told]
    np.testing.assert_allclose(found, expected.max(axis=1), atol=1e-4)


def test_formats(digits, tmp_path, capsys):
    first, second = sorted(digits.iterdir())[:2]
    call(first, second, DIGITS, "--top=2")
    text = capsys.readouterr().out
    one = r"{}\n +\d+\.\d\d %  \d\n +\d+\.\d\d %  \d\n"
    assert re.fullmatch(one.format(re.escape(str(first))) + one.format(".*png"), text), text

    call(first, second, DIGITS, "--top=2", "--format=csv")
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(row["file"], row["rank"]) for row in rows] == [
        (str(file), rank) for file in (first, second) for rank in "12"
    ]
    assert rows[0]["label"] == rows[0]["name"] == str(first)[-5]
    call(first, second, DIGITS, "--top=2", f"--output={tmp_path / 'a.CSV'}")
    assert list(csv.DictReader((tmp_path / "a.CSV").read_text().splitlines())) == rows

    call(first, second, DIGITS, "--top=20", f"--output={tmp_path / 'a.txt'}", "--format=json")
    told = json.loads((tmp_path / "a.txt").read_text())
    assert [len(each["top"]) for each in told] == [10, 10]
    assert sum(each["probability"] for each in told[0]["top"]) == pytest.approx(1, abs=1e-5)


def test_labels_and_readable_names(digits, tmp_path, capsys):
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"d{index}\tdigit {index}\n" for index in range(9)) + "n01514859\n")
    first = min(digits.iterdir())
    call(first, DIGITS, f"--labels={labels}", "--format=json", "--top=10")
    ((told),) = json.loads(capsys.readouterr().out)
    label = f"d{str(first)[-5]}"
    assert told["top"][0]["label"] == label
    assert told["top"][0]["name"] == label.replace("d", "digit ")
    assert {"n01514859": "hen"}.items() <= {e["label"]: e["name"] for e in told["top"]}.items()
    call(first, DIGITS, f"--labels={labels}", "--top=1")
    assert f"%  digit {label[1]} ({label})\n" in capsys.readouterr().out
    labels.write_text("a\nb\n")
    with pytest.raises(InputError, match="digits tells 10 classes apart, but there are 2 names"):
        call(first, DIGITS, f"--labels={labels}")


def test_a_run_and_one_of_its_checkpoints(digits, tmp_path, capsys):
    _, variables = load_pretrained("shiftresnet20.digits")
    names = [f"the {index}" for index in range(10)]
    learned = {"class_names": names, "num_examples": 1437, "files": None}
    run = write_run(tmp_path / "run", variables, data=learned)
    first = min(digits.iterdir())
    for model in (run, run / "checkpoints" / "7"):
        call(first, f"--model={model}", "--format=json", "--top=1")
        (told,) = json.loads(capsys.readouterr().out)
        assert told["top"][0]["label"] == f"the {str(first)[-5]}"
    with pytest.raises(InputError, match="no checkpoint with the metric 'top1'"):
        call(first, f"--model={run}", "--which=best")


def test_runs_that_tell_no_classes(digits, tmp_path):
    first = min(digits.iterdir())
    config = {"task": "style", "model": {"name": "shift_style_transformer"}}
    style = write_run(tmp_path / "style", {"params": {"x": np.zeros(3)}}, config)
    with pytest.raises(InputError, match="of the task 'style', expected a classifier"):
        call(first, f"--model={style}")
    with pytest.raises(InputError, match="mosaic tells no classes apart"):
        call(first, "--weights=shift_style_transformer.mosaic")
    with pytest.raises(InputError, match="There is no folder"):
        call(first, f"--model={tmp_path / 'nowhere'}")
    for flags in ([], [DIGITS, f"--model={style}"]):
        with pytest.raises(InputError, match="Give either --weights=NAME or --model=DIR"):
            call(first, *flags)


def test_a_network_that_diverged(digits, tmp_path):
    _, variables = load_pretrained("shiftresnet20.digits")
    variables = jax.tree.map(np.array, variables)
    variables["params"]["classifier"]["bias"][3] = np.nan
    run = write_run(tmp_path / "run", variables)
    with pytest.raises(InputError, match="outputs are not finite"):
        call(min(digits.iterdir()), f"--model={run}")


def test_photos_that_cannot_be_read_are_named_at_the_end(tmp_path, capsys):
    folder = tmp_path / "photos"
    write_photo(folder / "good.png", (30, 40))
    write_photo(folder / "inside" / "odd\udce9.png", (30, 40))
    (folder / "bad.jpg").write_bytes(b"nothing")
    (folder / "phone.HEIC").write_bytes(b"x")
    output = tmp_path / "classes.csv"
    with pytest.raises(InputError, match=r"2 of the 4 photos were left out, for the reasons"):
        call(folder, DIGITS, f"--output={output}")
    printed = capsys.readouterr()
    assert printed.out == f"2 photos; written to {output}\n"
    assert f"left out: {folder / 'bad.jpg'} cannot be read as an image" in printed.err
    assert "left out: 1 photos of kinds that are not read (.heic)" in printed.err
    assert b"odd\xe9.png" in output.read_bytes()

    (tmp_path / "bad.png").write_bytes(b"")
    with pytest.raises(InputError, match="1 of the 1 photos"):
        call(tmp_path / "bad.png", DIGITS, "--format=json")
    assert json.loads(capsys.readouterr().out) == []


def test_a_contact_sheet(digits, tmp_path, monkeypatch, capsys):
    sheet = tmp_path / "sheet.png"
    call(digits, DIGITS, f"--sheet={sheet}", "--top=1")
    height, width, _ = pixels_of(sheet).shape
    assert width == 8 + 6 * (160 + 8) and height == 8 + 2 * (160 + 24 + 8)
    monkeypatch.setattr(prediction, "LARGEST_SHEET", 11)
    with pytest.raises(InputError, match="would show 12 photos, at most 11 fit"):
        call(digits, DIGITS, f"--sheet={sheet}")


def test_mistakes_are_told_before_the_network_runs(digits, tmp_path, monkeypatch):
    monkeypatch.setattr(prediction.Predictor, "predict", None)
    first = min(digits.iterdir())
    for flags, sentence in (
        ([f"--output={first}"], "is one of the photos"),
        ([f"--sheet={first}"], "is one of the photos"),
        ([f"--output={tmp_path / 'no' / 'a.json'}"], "cannot be written"),
        ([f"--sheet={tmp_path / 'a.doc'}"], "unsupported image extension"),
        (["--top=0"], "--top is '0', expected a whole number of at least 1"),
        ([tmp_path / "no.jpg"], "There is no photo"),
        (["--weights=digits"], "No trained weights 'digits'"),
    ):
        with pytest.raises(InputError, match=sentence):
            call(first, *([] if "--weights" in str(flags) else [DIGITS]), *flags)


def test_the_package_alone_is_enough(tmp_path):
    photo = tmp_path / "photo.jpg"
    Image.fromarray(photos()[0]).save(photo)
    _, variables = load_pretrained("shiftresnet20.digits")
    run = write_run(tmp_path / "run", variables)
    code = (
        "import sys\n"
        "from shift_jax.commands.dispatch import main\n"
        "for name in ('ml_collections', 'clu', 'grain', 'matplotlib', 'sklearn', 'tensorflow',\n"
        "             'tensorflow_datasets', 'simplejpeg', 'cv2', 'h5py', 'scipy', 'pandas'):\n"
        "    sys.modules[name] = None\n"
        "sys.exit(main(['predict', *sys.argv[1:]]))\n"
    )
    arguments = [str(photo), f"--model={run}", "--format=json", "--top=1"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert json.loads(done.stdout)[0]["file"] == os.fspath(photo)


@pytest.mark.slow
def test_the_authors_network_knows_photos_of_imagenet(shared_data, tmp_path):
    """Through files and commands: import-weights, predict and eval."""
    file = shared_data / "weights" / "active_shift_w32.caffemodel"
    run, output = tmp_path / "w32", tmp_path / "classes.json"
    call_command(
        "import-weights", [str(file), "--model=as_resnet", "--width=32", f"--output={run}"]
    )
    call(shared_data / "imagenet_sample", f"--model={run}", f"--output={output}")
    told = json.loads(output.read_text())
    labels = [[each["label"] for each in photo["top"]] for photo in told]
    photos = [os.path.basename(photo["file"]).partition("_")[0] for photo in told]
    top1 = np.mean([found[0] == label for found, label in zip(labels, photos, strict=True)])
    top5 = np.mean([label in found for found, label in zip(labels, photos, strict=True)])
    assert len(told) == 99 and top1 >= 0.67 and top5 >= 0.84
    # The name that the file has, and ours.
    named = [(os.path.basename(each["file"]), each["top"][0]) for each in told]
    assert sum(top["name"].replace(" ", "_") in file for file, top in named) >= 0.67 * 99

    for photo in told:
        folder = tmp_path / "val" / os.path.basename(photo["file"]).partition("_")[0]
        folder.mkdir(parents=True)
        (folder / "0.JPEG").symlink_to(photo["file"])
    flags = ["--split=val", f"--data_dir={tmp_path}", "--allow_subset"]
    flags += ["--set=data.name=folder", "--set=data.train_split=val", "--set=eval_batch_size=32"]
    call_command("eval", [f"--workdir={run}", *flags])
    metrics = json.loads((run / "metrics_val.json").read_text())
    assert metrics["top1"] == pytest.approx(top1, abs=0.02)
    assert metrics["top5"] == pytest.approx(top5, abs=0.02)
