"""Image classification data: sources -> transforms -> batches.

    source = load_source("cifar100", "train", data_dir="...")
    batches = train_batches(source, pad_crop_flip(pad=4, flip=True), batch_size=128, seed=0)

A batch is a dict of NumPy arrays, and the batch of a given step is a pure function of
(seed, step). This package knows nothing of models or of JAX devices, and importing it
imports NumPy only; TFDS, scikit-learn, Pillow and Grain are imported on first use.
"""

from shift_jax.data.batches import eval_batches, steps_per_epoch, train_batches
from shift_jax.data.sources import Source, load_source
from shift_jax.data.transforms import pad_crop_flip

__all__ = [
    "Source",
    "eval_batches",
    "load_source",
    "pad_crop_flip",
    "steps_per_epoch",
    "train_batches",
]
