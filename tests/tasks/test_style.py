import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from shift_jax.config import StyleConfig, override, style
from shift_jax.errors import InputError
from shift_jax.models.network import Network
from shift_jax.models.registry import _RECORDS, ModelRecord, register
from shift_jax.tasks import make_task, separate_runs
from shift_jax.tasks.style_sheet import save_sheet
from shift_jax.training.evaluation import collect, evaluate_and_report
from shift_jax.training.mesh import make_mesh
from shift_jax.training.step import make_eval_step
from shift_jax.training.train import train
from tests.data.photos import photos


class Tint(Network):
    """One pointwise convolution."""

    num_classes: int = 0

    @nn.compact
    def __call__(self, x, train=False):
        return 255 * nn.sigmoid(nn.Dense(3, name="conv")(x / 255))


if "tinystyle" not in _RECORDS:
    register(
        ModelRecord("tinystyle", Tint, image_shape=(16, 16, 3), num_classes=None, mean=(0.0,) * 3)
    )


@pytest.fixture
def config(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "photos" / "more"
    folder.mkdir(parents=True)
    for i in range(10):
        part = photos()[i % 2][30 * i : 30 * i + 60, 50 * i : 50 * i + 80]
        Image.fromarray(part).save(folder / f"{i}.jpg", quality=95)
    (tmp_path / "styles").mkdir()
    for name, color in (("red.png", (220, 30, 40)), ("blue.jpg", (20, 40, 230))):
        pixels = rng.integers(-20, 20, (40, 50, 3)) + color
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(tmp_path / "styles" / name)
    np.savez(
        tmp_path / "vgg.npz",
        **{
            "block1_conv1.kernel": rng.normal(size=(3, 3, 3, 64), scale=0.02).astype(np.float32),
            "block1_conv1.bias": np.zeros(64, np.float32),
            "block1_conv2.kernel": rng.normal(size=(3, 3, 64, 64), scale=0.05).astype(np.float32),
            "block1_conv2.bias": np.zeros(64, np.float32),
        },
    )
    config = StyleConfig()
    config.model.name = "tinystyle"
    config.data.data_dir = str(tmp_path / "photos")
    config.data.image_size = 16
    config.data.held_out = 3
    config.style.folder = str(tmp_path / "styles")
    config.style.images = ("red",)
    config.style.size = 32
    config.style.vgg_weights = str(tmp_path / "vgg.npz")
    config.style.content_layer = "relu1_1"
    config.style.style_layers = ("relu1_1", "relu1_2")
    config.style.content_weight = 0.01
    config.style.style_weight = 1.0
    config.batch_size = 3
    config.eval_batch_size = 2
    config.epochs = 60.0
    config.eval_every_epochs = 30.0
    config.schedule.learning_rate = 0.05
    config.tensorboard = False
    return config


def test_the_loss_is_that_of_the_networks_output(config):
    config.style.tv_weight = 0.1
    task = make_task(config)
    task.check()
    variables = task.init(jax.random.key(0))
    batch = {"image": np.stack([task.source("test")[i]["image"] for i in range(3)])}
    loss, (stats, terms) = jax.jit(task.loss)(variables, batch, None)
    images = batch["image"].astype(np.float32)
    outputs = task.model.apply(variables, images)
    expected, expected_terms = task.perceptual_loss(outputs, jnp.asarray(images))
    assert float(loss) == pytest.approx(float(expected), rel=1e-4) and stats == {}
    assert set(terms) == {"content_loss", "style_loss", "tv_loss"} == set(expected_terms)
    assert float(loss) == pytest.approx(sum(map(float, terms.values())), rel=1e-5)


def test_photos_held_out_are_not_trained_on(config):
    task = make_task(config)
    split = {
        name: {task.source(name).describe(i) for i in range(len(task.source(name)))}
        for name in ("train", "test")
    }
    assert len(split["train"]) == 7 and len(split["test"]) == 3
    assert not split["train"] & split["test"]


def test_evaluation_is_the_mean_over_readable_photos_and_shows_them(config, tmp_path):
    task = make_task(config)
    broken = task.source("test").describe(1)
    with open(broken, "wb") as file:
        file.write(b"text named .jpg")
    config.data.max_unreadable_fraction = 0.5
    variables = task.init(jax.random.key(0))
    mesh = make_mesh(jax.devices()[:2])
    outputs = collect(task, variables, "test", make_eval_step(task, mesh), mesh)
    metrics = task.summarize("test", outputs)
    assert metrics["examples"] == 2
    losses = []
    for i in (0, 2):
        image = jnp.asarray(task.source("test")[i]["image"][None], jnp.float32)
        losses.append(float(task.perceptual_loss(task.model.apply(variables, image), image)[0]))
    assert metrics["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert metrics["negative_loss"] == -metrics["loss"]
    text, record = task.report("test", outputs, tmp_path / "metrics.json")
    assert "test examples 2" in text
    # The style, 16 pixels high, at the left, and two photos, 16 wide, with gaps of 4.
    with Image.open(record["picture"]) as picture:
        assert picture.size == (20 + 2 * 20, 2 * 16 + 4)


@pytest.mark.slow
def test_two_styles_become_two_networks_of_their_colors(config, tmp_path):
    config.style.images = ("red.png", "blue.jpg")
    train(config, tmp_path / "run", devices=jax.devices()[:1])
    for name, channel in (("red", 0), ("blue", 2)):
        workdir = tmp_path / "run" / name
        assert (workdir / "pictures" / "00000060.png").exists()
        lines = [json.loads(li) for li in (workdir / "history.jsonl").read_text().splitlines()]
        losses = [line["style_loss"] for line in lines if line["kind"] == "train"]
        assert losses[-1] < 0.2 * losses[0]
        record = evaluate_and_report(workdir=workdir)
        sheet = np.asarray(Image.open(record["picture"]), np.float32)
        stylized = sheet[20:, 24:].reshape(-1, 3)
        assert stylized.mean(0).argmax() == channel


def test_a_config_of_one_style_is_one_run(config):
    assert separate_runs(config) == {"": config}


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("style.images", (), "style.images names 0 images, expected one for each run"),
        ("style.images", ("green",), "There is no image 'green' in style.folder="),
        ("style.size", 64, "red.png has 50x40 pixels, too few to scale it down to 64"),
        ("style.vgg_weights", "", "vgg_weights"),
        ("style.vgg_depth", 17, "16"),
        ("style.style_layers", ("relu1_1", "relu3_1"), "relu1_2"),
        ("style.style_layers", (), "at least one layer and none twice"),
        ("style.style_layers", ("relu1_1", "relu1_1"), "at least one layer and none twice"),
        ("style.images", ("rde",), "one of them. Did you mean 'red'"),
        ("data.std", (1.0,) * 3, "must be 0 and 1/255 for this task"),
        ("data.image_size", 18, "image_size is 18, .* set it to a multiple of 4"),
        ("style.style_weight", -1.0, "style.style_weight is -1.0, expected a number of 0 or"),
        ("data.data_dir", "nowhere", "nowhere is not a folder"),
        ("data.data_dir", "", "photos need data_dir"),
        ("data.held_out", 10, "Cannot hold out 10 of the 10 photos"),
        ("data.eval_split", "validation", "no split 'validation': use 'train' or 'test'"),
    ],
)
def test_what_does_not_fit_is_told_at_once(config, field, value, message):
    config = override(config, {field: value})
    with pytest.raises(InputError, match=message):
        make_task(config).check()


def test_weights_of_which_none_counts(config):
    config.style.content_weight = config.style.style_weight = 0.0
    with pytest.raises(InputError, match="both 0, so nothing would be learned"):
        make_task(config)


def test_no_style_is_learned_before_all_are_known_to_fit(config, tmp_path):
    config.style.images = ("red.png", "bleu")
    with pytest.raises(InputError, match="no image 'bleu' .* Did you mean 'blue'"):
        train(config, tmp_path / "run", devices=jax.devices()[:1])
    assert not (tmp_path / "run").exists()
    config.style.images = ("red.png", "more/red.jpg")
    with pytest.raises(InputError, match="two styles named 'red'"):
        train(config, tmp_path / "run")


def test_a_folder_of_runs_is_no_run(tmp_path):
    for name in ("mosaic", "candy"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    with pytest.raises(InputError, match="holds the runs candy, mosaic: name one of them, as in"):
        evaluate_and_report(workdir=tmp_path)


def test_the_authors_recipe():
    config = style("mosaic,candy.jpg,variant=text")
    assert config.style.images == ("mosaic", "candy.jpg")
    assert config.model.name == "shift_style_transformer"
    assert config.model.arguments == {"variant": "text"}
    assert style("mosaic,original").model.name == "style_transformer"
    assert (config.style.content_weight, config.style.style_weight) == (1e5, 1e10)
    assert config.style.style_layers == ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    assert (config.data.image_size, config.batch_size, config.epochs) == (256, 4, 2.0)
    assert (config.optimizer.name, config.schedule.learning_rate) == ("adam", 1e-3)
    assert config.optimizer.weight_decay == 0
    config = style("mosaic,coco")
    assert (config.data.name, config.data.eval_split) == ("coco", "validation[:8]")
    assert config.style.images == ("mosaic",)
    for options, message in (("", "name no style"), ("original", "name no style")):
        with pytest.raises(InputError, match=message):
            style(options)
    with pytest.raises(InputError, match="have 'size', expected variant=VALUE"):
        style("mosaic,size=3")


def test_a_sheet_has_the_style_the_photos_and_the_results(tmp_path):
    style = np.full((10, 20, 3), (255, 0, 0), np.uint8)
    pictures = [np.full((2, 16, 12, 3), value, np.uint8) for value in (60, 200)]
    save_sheet(tmp_path / "new" / "sheet.png", style, *pictures)
    sheet = np.asarray(Image.open(tmp_path / "new" / "sheet.png"))
    assert sheet.shape == (36, 32 + 2 * 16, 3)
    assert (sheet[:16, :32] == (255, 0, 0)).all() and (sheet[:16, 36:48] == 60).all()
    assert (sheet[20:, 52:] == 200).all()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["sheet.png"]
