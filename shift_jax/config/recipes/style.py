"""Recipes of style transfer."""

from __future__ import annotations

from shift_jax.config.experiment import StyleConfig
from shift_jax.config.options import parse_options
from shift_jax.errors import InputError


def style(options: str) -> StyleConfig:
    """Returns style transfer by the authors' recipe, or as the options change it.

    Args:
      options: separated by commas: images in style.folder, named with or without their extension,
        and perhaps
        original: Johnson's convolutions in place of shifts.
        variant=text: the sizes in the paper's text in place of those in the released code.
        coco: TFDS's COCO in place of a folder, with pictures every 517 steps.
        small: for a few hundred photos and a CPU: six epochs of batches of 2 crops, 96×96, with a
          higher learning rate that decays.

    Raises:
      InputError: no style, or an unknown option.
    """
    words, pairs = parse_options(options)
    images = tuple(word for word in words if word not in ("original", "small", "coco"))
    unknown = [key for key in pairs if key != "variant"]
    if not images:
        raise InputError(
            f"The options {options!r} name no style, expected images in style.folder, as in "
            "configs/style.py:mosaic."
        )
    if unknown:
        raise InputError(f"The options {options!r} have {unknown[0]!r}, expected variant=VALUE.")
    config = StyleConfig()
    config.model.name = "style_transformer" if "original" in words else "shift_style_transformer"
    config.model.arguments = {"variant": pairs.get("variant", "released")}
    config.style.images = images
    config.checkpoint_every_steps = 1000
    if "coco" in words:
        config.data.name = "coco"
        config.data.eval_split = "validation[:8]"
        config.eval_every_epochs = 0.025
    if "small" in words:
        config.data.image_size = 96
        config.data.augmentation = "inception"
        config.data.crop_scale = (0.2, 1.0)
        config.data.crop_ratio = (1.0, 1.0)
        config.data.flip = True
        config.batch_size = 2
        config.epochs = 6.0
        config.schedule.name = "cosine"
        config.schedule.learning_rate = 1e-2
    return config
