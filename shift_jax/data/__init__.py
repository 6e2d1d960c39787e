"""Labeled images: from sources through transforms to batches.

    source = load_source("cifar100", "train", data_dir="...")
    batches = train_batches(source, pad_crop_flip(pad=4, flip=True), batch_size=128, seed=0)

A batch is a dict of NumPy arrays and a pure function of (seed, step). This package knows nothing of
models or JAX devices. Importing it imports only NumPy; TFDS, scikit-learn, Pillow, simplejpeg,
OpenCV and Grain are imported on first use.
"""

from shift_jax.data.augment.inception import random_resized_crop
from shift_jax.data.augment.transforms import Transform, pad_crop_flip
from shift_jax.data.decode.unreadable import UnreadableImageError, check_max_unreadable_fraction
from shift_jax.data.loading.batches import eval_batches, steps_per_epoch, train_batches
from shift_jax.data.loading.read_ahead import Batches
from shift_jax.data.preprocessing import preprocessor
from shift_jax.data.sources.arrays import ArraySource
from shift_jax.data.sources.fingerprint import Fingerprint, fingerprint
from shift_jax.data.sources.identities import identity_names, image_paths, load_identities
from shift_jax.data.sources.identity_split import read_names, split_identities
from shift_jax.data.sources.known_classes import class_difference, known_classes
from shift_jax.data.sources.listing import IMAGE_EXTENSIONS, image_names, normalized, subfolders
from shift_jax.data.sources.photos import load_photos, read_photo
from shift_jax.data.sources.selections import ImageFiles, Subset
from shift_jax.data.sources.source import (
    DescribedSource,
    EncodedSource,
    LabeledSource,
    Source,
    load_source,
)

__all__ = [
    "IMAGE_EXTENSIONS",
    "ArraySource",
    "Batches",
    "DescribedSource",
    "EncodedSource",
    "Fingerprint",
    "ImageFiles",
    "LabeledSource",
    "Source",
    "Subset",
    "Transform",
    "UnreadableImageError",
    "check_max_unreadable_fraction",
    "class_difference",
    "eval_batches",
    "fingerprint",
    "identity_names",
    "image_names",
    "image_paths",
    "known_classes",
    "load_identities",
    "load_photos",
    "load_source",
    "normalized",
    "pad_crop_flip",
    "preprocessor",
    "random_resized_crop",
    "read_names",
    "read_photo",
    "split_identities",
    "steps_per_epoch",
    "subfolders",
    "train_batches",
]
