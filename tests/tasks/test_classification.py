import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from shift_jax.config import ClassificationConfig
from shift_jax.errors import InputError
from shift_jax.tasks import make_task
from shift_jax.tasks.classification import mixup
from tests.data.photos import write_folder


@pytest.fixture
def config():
    config = ClassificationConfig()
    config.model.name = "shiftresnet20"
    config.data.name = "digits"
    config.data.mean, config.data.std = (0.3,), (0.2,)
    return config


class Logits:
    """Stands in for a network: its logits are the first pixels."""

    def apply(self, variables, images, train, mutable=None, rngs=None):
        logits = images[:, 0, :6, 0]
        return (logits, {}) if mutable else logits


def batch(labels, mask=None):
    images = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 1), np.uint8)
    batch = {"image": jnp.asarray(images), "label": jnp.asarray(labels)}
    return batch if mask is None else {**batch, "mask": jnp.asarray(mask)}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_is_smoothed_cross_entropy_of_normalized_images(config, smoothing):
    config.label_smoothing = smoothing
    task = make_task(config)
    task.model = Logits()
    examples = batch([3, 1, 5, 0])
    loss, (stats, metrics) = task.loss({}, examples, jax.random.key(0))

    logits = (np.asarray(examples["image"], np.float64)[:, 0, :6, 0] / 255 - 0.3) / 0.2
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = np.eye(6)[[3, 1, 5, 0]] * (1 - smoothing) + smoothing / 6
    assert loss == pytest.approx(-(targets * log_p).sum(1).mean(), rel=1e-5)
    assert metrics["top1"] == (logits.argmax(1) == [3, 1, 5, 0]).mean()
    assert stats == {}


def test_mixup_mixes_images_and_targets_alike(config):
    config.mixup_alpha = 0.4
    task = make_task(config)
    task.model = Logits()
    examples, key = batch([3, 1, 5, 0]), jax.random.key(3)
    loss, (_, metrics) = task.loss({}, examples, key)

    share = float(jax.random.beta(jax.random.split(key)[0], 0.4, 0.4))
    share = max(share, 1 - share)
    assert 0.5 < share < 0.99  # This key mixes.
    pixels = (np.asarray(examples["image"], np.float64)[:, 0, :6, 0] / 255 - 0.3) / 0.2
    logits = share * pixels + (1 - share) * pixels[[3, 0, 1, 2]]
    targets = share * np.eye(6)[[3, 1, 5, 0]] + (1 - share) * np.eye(6)[[0, 3, 1, 5]]
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    assert loss == pytest.approx(-(targets * log_p).sum(1).mean(), rel=1e-5)
    assert metrics["top1"] == (logits.argmax(1) == [3, 1, 5, 0]).mean()


def test_mixup_draws_from_the_beta_distribution():
    ends = jnp.asarray([0.0, 1.0])
    shares = [float(mixup(jax.random.key(i), 0.3)(ends)[1]) for i in range(400)]
    assert min(shares) >= 0.5
    # Of Beta(a, a) the variance is 1 / (4 (2a + 1)), and folding keeps squares around 1/2.
    assert np.mean((np.asarray(shares) - 0.5) ** 2) == pytest.approx(1 / (4 * 1.6), rel=0.1)


def test_masked_examples_do_not_count(config):
    task = make_task(config)
    task.model = Logits()
    labels, mask = [3, 1, 5, 0], [True, False, True, False]
    sums = task.evaluation_outputs({}, batch(labels, mask))
    kept = {key: value[::2] for key, value in batch(labels, mask).items()}
    alone = task.evaluation_outputs({}, kept)
    for key in ("examples", "loss", "top1", "top5"):
        assert float(sums[key]) == pytest.approx(float(alone[key]), rel=1e-6)
    assert sums["examples"] == 2


def test_ties_are_not_all_hits(config):
    task = make_task(config)
    task.model = Logits()
    flat = {**batch([0, 1, 5], [True] * 3), "image": jnp.zeros((3, 8, 8, 1), jnp.uint8)}
    sums = task.evaluation_outputs({}, flat)
    assert sums["top1"] == 1 and sums["top5"] == 2


def test_batch_sizes_that_occur(config):
    config.batch_size = 128
    assert make_task(config).batch_sizes == (128, 1437 % 128)
    assert make_task(config).steps_per_epoch == 12
    config.data.drop_remainder = True
    assert make_task(config).batch_sizes == (128,)
    assert make_task(config).steps_per_epoch == 11
    config.data.drop_remainder = False
    config.batch_size = 5000
    assert make_task(config).batch_sizes == (1437,)


def test_the_model_has_the_datasets_classes_and_the_configs_type(config):
    config.model.dtype = "bfloat16"
    model = make_task(config).model
    assert model.num_classes == 10 and model.dtype == jnp.bfloat16


def test_an_empty_split_has_no_metrics(config):
    with pytest.raises(InputError, match="no examples"):
        make_task(config).summarize("test", {"examples": 0.0})


@pytest.fixture
def photos(config, tmp_path):
    """Config of a folder of real photos, in two classes."""
    for split in ("train", "test"):
        write_folder(tmp_path, split, per_class=2)
    config.data.name, config.data.data_dir = "folder", str(tmp_path)
    config.data.mean = config.data.std = (0.5, 0.5, 0.5)
    config.data.image_size = 16
    config.data.augmentation = "inception"
    config.batch_size = 4
    return config


def test_inception_trains_on_crops_and_evaluates_the_center(photos):
    photos.data.eval_crop = 0.5
    task = make_task(photos)
    task.check()
    with contextlib.closing(task.train_batches(0)) as batches:
        first, second = next(batches), next(batches)
    assert first["image"].shape == (4, 16, 16, 3)
    assert (first["image"] != second["image"]).any()
    with contextlib.closing(task.eval_batches("test", 4)) as batches:
        center = next(batches)
    photos.data.eval_crop = 1.0
    with contextlib.closing(make_task(photos).eval_batches("test", 4)) as batches:
        assert (next(batches)["image"] != center["image"]).any()


def test_classes_are_those_of_the_two_splits_opened_once(photos, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    write_folder(tmp_path, "validation", per_class=1)
    (tmp_path / "validation/class1").rename(tmp_path / "validation/fox")
    (tmp_path / "train/class0/1.heic").write_bytes(b"")
    (tmp_path / "test/class0/1.heic").write_bytes(b"")
    task = make_task(photos)
    task.check()
    assert task.num_classes == 2 and task.source("test") is task.source("test")
    assert len(said) == 2 and all("such as class0/1.heic" in each for each in said)
    with pytest.raises(InputError, match="fox holds images, but 'fox' is not a class of test"):
        task.source("validation")


def test_a_damaged_photo_is_left_out_as_far_as_allowed(photos, tmp_path):
    (tmp_path / "train/class0/0.jpg").write_bytes(b"")
    photos.data.max_unreadable_fraction = 0.3
    with contextlib.closing(make_task(photos).train_batches(0)) as batches:
        assert set(next(batches)) == {"image", "label"}
    photos.data.max_unreadable_fraction = 0.2
    batches = make_task(photos).train_batches(0)
    with pytest.raises(InputError, match="1 of 4 examples"):
        next(batches)


def test_synthetic_images_need_no_files(config):
    config.data.name, config.data.image_size = "synthetic", 8
    config.data.mean = config.data.std = (0.5, 0.5, 0.5)
    config.data.augmentation = "inception"
    task = make_task(config)
    task.check()
    assert task.image_shape == (8, 8, 3) and task.model.num_classes == 1000
    assert next(task.train_batches(0))["image"].shape == (128, 8, 8, 3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"augmentation": "incepton"}, "data.augmentation is 'incepton', .*mean 'inception'"),
        ({"pad": 4}, "data.pad is 4, but data.augmentation='inception' does not use it"),
        (
            {"augmentation": "pad_crop_flip", "color_jitter": 0.4},
            "data.color_jitter is 0.4, but data.augmentation='pad_crop_flip' does not use it",
        ),
        ({"color_jitter": -1.0}, "data.color_jitter is -1.0, expected a number from 0 to 1"),
        ({"crop_scale": (1.0, 0.08)}, "crop_scale is .*; it must be"),
        ({"crop_ratio": (0.0, 1.0)}, "data.crop_ratio is .*, expected 2 numbers above 0"),
        ({"randaugment_magnitude": 31}, "data.randaugment_magnitude is 31, expected an integer"),
        ({"eval_crop": 1.5}, "data.eval_crop is 1.5, expected a number above 0 and at"),
        ({"max_unreadable_fraction": 2.0}, "data.max_unreadable_fraction is 2.0, expected"),
    ],
)
def test_wrong_data_settings_are_refused_at_the_start(photos, changes, sentence):
    for name, value in changes.items():
        setattr(photos.data, name, value)
    with pytest.raises(InputError, match=f"^{sentence}"):
        make_task(photos).check()


def test_colors_of_gray_images_are_refused(config):
    config.data.augmentation, config.data.color_jitter = "inception", 0.4
    with pytest.raises(InputError, match="needs RGB images, but these have 1 channel"):
        make_task(config).check()
