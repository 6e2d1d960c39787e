"""Real ImageNet photos, where they are at hand, through the whole pipeline."""

import itertools

import numpy as np
import pytest
from PIL import Image

from shift_jax.data import eval_batches, load_source, random_resized_crop, train_batches
from shift_jax.data.augment.inception import crop_box, resize
from shift_jax.data.decode.images import EncodedImage


@pytest.fixture
def photos(shared_data):
    found = sorted((shared_data / "imagenet_sample").glob("*.JPEG"))
    assert len(found) == 99
    return found


@pytest.fixture
def root(photos, tmp_path):
    for photo in photos:
        for split in ("train", "validation"):
            folder = tmp_path / split / photo.name.partition("_")[0]
            folder.mkdir(parents=True, exist_ok=True)
            (folder / photo.name).symlink_to(photo)
    return tmp_path


def test_training_and_evaluation_batches(root):
    source = load_source("folder", "train", data_dir=str(root), image_size=224)
    assert len(source) == source.num_classes == 99
    transform = random_resized_crop(224, color_jitter=0.4, randaugment_num_ops=2)
    batches = list(itertools.islice(train_batches(source, transform, batch_size=33, seed=0), 3))
    assert sorted(np.concatenate([b["label"] for b in batches])) == list(range(99))
    images = np.concatenate([b["image"] for b in batches])
    assert images.shape == (99, 224, 224, 3) and images.dtype == np.uint8
    # RandAugment can make an image flat, but not many of them.
    assert (images.std((1, 2, 3)) > 20).sum() > 90

    source = load_source(
        "folder", "validation", data_dir=str(root), image_size=224, eval_crop=0.875
    )
    batches = list(eval_batches(source, batch_size=50))
    assert sum(b["mask"].sum() for b in batches) == 99
    images = np.concatenate([b["image"] for b in batches])[:99]
    np.testing.assert_allclose(images.mean((0, 1, 2)) / 255, [0.485, 0.456, 0.406], atol=0.05)


def test_crops_agree_with_full_decoding_and_resizing(photos):
    rng = np.random.default_rng(0)
    errors = []
    for photo in photos:
        data = photo.read_bytes()
        whole = Image.open(photo).convert("RGB")
        image = EncodedImage(data)
        assert image.size == (whole.height, whole.width)
        box = crop_box(*image.size, (0.08, 1.0), (3 / 4, 4 / 3), rng)
        top, left, height, width = box
        reference = whole.crop((left, top, left + width, top + height)).resize(
            (112, 112), Image.Resampling.BILINEAR
        )
        crop = resize(image.crop(box, 112), 112).astype(int)
        errors.append(np.abs(crop - np.asarray(reference)).mean())
    # Gray values of 255; the largest are reduced crops of much fine texture.
    assert np.mean(errors) < 3 and max(errors) < 12


def test_the_center_crop_is_pillows(photos):
    for photo in photos[::9]:
        whole = Image.open(photo).convert("RGB")
        scale = 256 / min(whole.size)
        width, height = (max(256, round(side * scale)) for side in whole.size)
        left, top = (width - 224) // 2, (height - 224) // 2
        resized = whole.resize((width, height), Image.Resampling.BILINEAR)
        reference = np.asarray(resized.crop((left, top, left + 224, top + 224))).astype(int)
        crop = EncodedImage(photo.read_bytes()).center_crop(224, 0.875)
        assert np.abs(crop - reference).mean() < 0.5
