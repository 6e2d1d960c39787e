"""Style transfer: an image transformer trained on a perceptual loss (Section 3.4, Table 10)."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from shift_jax import data
from shift_jax.errors import InputError, did_you_mean
from shift_jax.models.vgg_features import read_vgg_features
from shift_jax.tasks.image_task import ImageTask
from shift_jax.tasks.perceptual_loss import PerceptualLoss, style_targets
from shift_jax.tasks.style_sheet import save_sheet

if TYPE_CHECKING:
    from pathlib import Path

    from shift_jax.config import StyleConfig
    from shift_jax.models.network import Network

_MOST_SHOWN = 8
_EXTENSIONS = ("", ".jpg", ".jpeg", ".png", ".webp")


class Style(ImageTask):
    """The task of style transfer; implements `shift_jax.tasks.Task`.

    Args:
      config: of the experiment.

    Raises:
      InputError: a style or a loss that cannot be trained.
    """

    config: StyleConfig
    best_metric = "negative_loss"
    fractions = frozenset()
    num_classes: None = None  # pyright: ignore[reportAssignmentType]

    def __init__(self, config: StyleConfig):
        super().__init__(config)
        if len(config.style.images) != 1:
            raise InputError(
                f"style.images names {len(config.style.images)} images, expected one for each run."
            )
        if not (config.style.content_weight or config.style.style_weight):
            raise InputError(
                "style.content_weight and style.style_weight are both 0, so nothing would be "
                "learned: set at least one of them to a number above 0."
            )
        layers = config.style.style_layers
        if not layers or len(set(layers)) < len(layers):
            raise InputError(
                f"style.style_layers is {layers}, expected at least one layer and none twice, "
                "such as ('relu1_2', 'relu2_2')."
            )
        if any(config.data.mean) or not np.allclose(config.data.std, 1 / 255):
            raise InputError(
                "data.mean and data.std must be 0 and 1/255 for this task: the image transformers "
                "take pixels in 0..255."
            )

    def check(self) -> None:
        super().check()
        if self.config.data.image_size % 4:
            raise InputError(
                f"data.image_size is {self.config.data.image_size}, but the image transformers "
                "scale by 4: set it to a multiple of 4."
            )
        if len(self.source(self.eval_split)) > 4096:
            raise InputError(
                f"The split {self.eval_split!r} has {len(self.source(self.eval_split)):,} photos, "
                "all of which each evaluation would stylize: set data.eval_split to a slice, such "
                "as 'validation[:16]'."
            )
        self.perceptual_loss  # noqa: B018 (opens the style image and the weights)

    @cached_property
    def _train_source(self) -> data.Source:
        return self.source(self.config.data.train_split)

    def _open(self, split: str) -> data.Source:
        settings = self.config.data
        return data.load_photos(
            settings.name,
            split,
            data_dir=settings.data_dir or None,
            image_size=settings.image_size,
            held_out=settings.held_out,
        )

    @cached_property
    def model(self) -> Network:
        """The image transformer."""
        return self._network()

    @cached_property
    def style_image(self) -> np.ndarray:
        """The image whose style is learned, uint8 [H, W, 3]."""
        settings = self.config.style
        return data.read_photo(_found(settings.folder, settings.images[0]), settings.size or None)

    @cached_property
    def perceptual_loss(self) -> PerceptualLoss:
        """The loss, with the Gram matrices of the style image."""
        settings = self.config.style
        layers = settings.style_layers
        vgg = read_vgg_features(
            settings.vgg_weights, settings.vgg_depth, (*layers, settings.content_layer)
        )
        with jax.ensure_compile_time_eval():  # The trace of a step may ask first.
            targets = style_targets(vgg, self.style_image, layers)
        return PerceptualLoss(
            vgg=vgg,
            content_layer=settings.content_layer,
            targets=jax.tree.map(np.asarray, targets),
            content_weight=settings.content_weight,
            style_weight=settings.style_weight,
            tv_weight=settings.tv_weight,
        )

    def init(self, rng: jax.Array) -> dict:
        return self.model.init(rng, jnp.zeros((1, *self.image_shape)), train=False)

    def loss(self, variables: dict, batch: dict, rng: jax.Array):
        """Returns what `Task.loss` documents; the metrics are the weighted terms of the loss."""
        images = self.normalize(batch["image"])
        outputs = self.model.apply(variables, images, train=True)
        loss, terms = self.perceptual_loss(outputs, images)
        return loss, ({}, terms)

    def evaluation_outputs(self, variables: dict, batch: dict) -> dict[str, jax.Array]:
        images = self.normalize(batch["image"])
        outputs = self.model.apply(variables, images, train=False)

        def of_one(output, image):
            loss, terms = self.perceptual_loss(output[None], image[None])
            return {"loss": loss, **terms}

        each = jax.vmap(of_one)(outputs, images)
        sums = {key: jnp.where(batch["mask"], value, 0).sum() for key, value in each.items()}
        stylized = jnp.clip(jnp.round(outputs), 0, 255).astype(jnp.uint8)
        shown = {"photos": batch["image"], "stylized": stylized, "mask": batch["mask"]}
        return {"examples": batch["mask"].sum(), **sums, **shown}

    def summarize(self, split: str, outputs: dict) -> dict[str, float]:
        """Returns the mean loss, its weighted terms, its negative and the number of photos."""
        examples = outputs["examples"]
        if not examples:
            raise InputError(f"The split {split!r} has no readable photo: name another split.")
        means = {
            key: value / examples
            for key, value in outputs.items()
            if key not in ("examples", "photos", "stylized", "mask")
        }
        return {**means, "negative_loss": -means["loss"], "examples": int(examples)}

    def report(self, split: str, outputs: dict, path: Path) -> tuple[str, dict]:
        """Also draws the stylized photos, beside `path`."""
        text, record = super().report(split, outputs, path)
        picture = path.with_suffix(".png")
        self.draw(split, outputs, picture)
        return f"{text}\nstylized photos in {picture}", {**record, "picture": str(picture)}

    def draw(self, split: str, outputs: dict, path: Path) -> None:
        """Draws the style, some photos and their stylized versions."""
        shown = np.flatnonzero(outputs["mask"])[:_MOST_SHOWN]
        save_sheet(path, self.style_image, outputs["photos"][shown], outputs["stylized"][shown])


def _found(folder: str, name: str) -> str:
    """Returns the path of a style image, which may be named without its extension."""
    paths = [os.path.join(folder, name + extension) for extension in _EXTENSIONS]
    found = [path for path in paths if os.path.isfile(path)]
    if not found:
        there = os.listdir(folder) if os.path.isdir(folder) else []
        # Misspelled options of configs/style.py look like images.
        known = (*(os.path.splitext(each)[0] for each in there), "original", "small", "coco")
        raise InputError(
            f"There is no image {name!r} in style.folder={folder!r}: name the folder of the style "
            f"images, and one of them.{did_you_mean(name, known)}"
        )
    return found[0]
