"""Real photos that are always there (scikit-learn's), as files of many kinds."""

import functools
import io

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


@functools.cache
def photos():
    """Two uint8 [427, 640, 3]."""
    return tuple(np.asarray(image) for image in load_sample_images().images)


def encoded(image, format="JPEG", **options):
    """The bytes of a file with an array or a Pillow image."""
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def write_photo(path, size=(5, 5), seed=0):
    """Writes a photo of random pixels, the smallest by default: it is quickest to compile for."""
    path.parent.mkdir(exist_ok=True, parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def pixels_of(path):
    """The pixels in an image file."""
    with Image.open(path) as image:
        return np.asarray(image)


def write_folder(root, split="train", per_class=4):
    """Fills root/split with class folders of different crops of the two photos."""
    for number, photo in enumerate(photos()):
        folder = root / split / f"class{number}"
        folder.mkdir(parents=True)
        for i in range(per_class):
            crop = photo[10 * i : 300 + 20 * i, 5 * i : 250 + 40 * i]
            (folder / f"{i}.jpg").write_bytes(encoded(crop, quality=90))
    return root
