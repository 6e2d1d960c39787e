"""Recipes of face embedding."""

from __future__ import annotations

import os

from shift_jax.config.experiment import FacesConfig
from shift_jax.config.options import parse_options
from shift_jax.errors import InputError, did_you_mean


def faces(model: str = "shiftfacenet", options: str = "") -> FacesConfig:
    """Returns face embedding by softmax and center loss, on any folder of identities.

    The paper names the losses and the 10,000 identities of MS-Celeb-1M (Section 3.3) and no other
    number; the rest is ours.

    Args:
      model: "shiftfacenet" or "facenet".
      options: separated by commas:
        paper: 10,000 identities, and 100,000 random pairs of the others.
        small: for a few hundred images of about a dozen people, on a CPU: batches of 25 small
          images.

    Raises:
      InputError: an unknown option.
    """
    words, pairs = parse_options(options)
    known = ("paper", "small")
    for name in (*words, *pairs):
        if name not in known or name in pairs:
            raise InputError(
                f"The options {options!r} have {name!r}, expected {' or '.join(known)}."
                f"{did_you_mean(name, known)}"
            )
    config = FacesConfig()
    config.model.name = model
    config.data.augmentation = "inception"
    config.data.crop_scale = (0.7, 1.0)
    config.data.crop_ratio = (0.9, 1 / 0.9)
    config.data.flip = True
    config.data.drop_remainder = True
    config.data.num_workers = min(os.cpu_count() or 1, 16)
    config.epochs = 30.0
    config.checkpoint_every_steps = 1000
    config.eval_batch_size = 256
    config.schedule.name = "cosine"
    config.schedule.warmup_epochs = 1.0
    if "paper" in words:
        config.data.num_identities = 10_000
        config.data.held_out = 0
        config.data.eval_split = "random"
    if "small" in words:
        config.data.image_size = 96
        config.data.num_workers = 0
        config.data.color_jitter = 0.3
        config.data.crop_scale = (0.75, 1.0)
        config.batch_size = 25
        config.loss.center_weight = 0.0005
        config.eval_every_epochs = 10.0
        config.schedule.warmup_epochs = 4.0
        config.optimizer.nesterov = True
        config.optimizer.weight_decay_on = "kernels"
    return config
