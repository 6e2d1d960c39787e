"""A stand-in for MTCNN, and folders of photos for it."""

import csv
import os

import numpy as np
from PIL import Image

from shift_jax.data.faces.align_report import FILE_NAME
from shift_jax.data.faces.alignment import canonical_landmarks
from shift_jax.data.faces.detector import Face
from tests.data.photos import photos

PHOTO = photos()[0][:300, :400]
LANDMARKS = canonical_landmarks(112) + 60
DARK = np.zeros((80, 100, 3), np.uint8)


class Detector:
    """Sees a face in every photo that is not dark, and a second, smaller one in green photos."""

    def __init__(self, min_confidence=0.9, breaks_at=None):
        self.min_confidence = min_confidence
        self.breaks_at = breaks_at
        self.seen = 0

    def detect(self, image):
        self.seen += 1
        if self.seen == self.breaks_at:
            raise KeyboardInterrupt
        confidence = 0.6 if image.max() == 50 else 0.99
        if image.max() < 40 or confidence < self.min_confidence:
            return []
        faces = [Face((60, 60, 172, 172), confidence, LANDMARKS)]
        if image[..., 1].min() > 200:
            faces.append(Face((10, 10, 40, 40), 0.999, LANDMARKS / 4))
        return faces


def fill(root, names, image=PHOTO, **options):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(root / name, **options)


def report_of(target):
    with open(target / FILE_NAME, newline="") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def pixels_of(path):
    with Image.open(path) as image:
        return np.asarray(image).astype(int)


def files_in(target):
    return sorted(
        os.path.relpath(os.path.join(folder, name), target)
        for folder, _, names in os.walk(target)
        for name in names
        if name != FILE_NAME
    )


def dots(shape, centers, radius):
    """Soft dots on black, one channel each."""

    def bell(length, center):
        return np.exp(-((np.arange(length) - center) ** 2) / (2 * radius**2))

    image = [255 * np.outer(bell(shape[0], y), bell(shape[1], x)) for x, y in centers]
    return np.stack(image, axis=-1).round().astype(np.uint8)


def center_of(channel):
    weights = channel.astype(float) ** 2
    columns, rows = weights.sum(axis=0), weights.sum(axis=1)
    return np.array([columns @ np.arange(len(columns)), rows @ np.arange(len(rows))]) / rows.sum()


def face(left, top, right, bottom, confidence=0.99):
    center = np.array([(left + right) / 2, (top + bottom) / 2])
    landmarks = center + (canonical_landmarks(112) - 56) * (right - left) / 112
    return Face((left, top, right, bottom), confidence, landmarks)


def write_photos(folder):
    """Writes three photos to folder/in, which it returns."""
    fill(folder / "in", ["Ann/Ann_0001.jpg", "Bob/video 1/0.12.png", "flat.PNG"])
    return folder / "in"
