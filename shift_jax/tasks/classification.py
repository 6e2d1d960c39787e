"""Image classification: softmax cross-entropy, top-1 and top-5."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import optax

from shift_jax import data
from shift_jax.errors import InputError, check_choice
from shift_jax.models import create_model

if TYPE_CHECKING:
    from flax import linen as nn
    from ml_collections import ConfigDict


class Classification:
    """The classification task; implements `shift_jax.tasks.Task`.

    A batch has "image" uint8 [B, H, W, C] and "label" int32 [B]; evaluation batches have "mask"
    bool [B] too.

    Args:
      config: the experiment's; `configs/common.py` explains its fields.

    Raises:
      InputError: a dataset, model or batch size that does not exist or does not fit.
    """

    best_metric = "top1"
    fractions = frozenset({"top1", "top5"})

    def __init__(self, config: ConfigDict):
        if config.model.dtype not in ("float32", "bfloat16", "float16"):
            raise InputError(
                f"model.dtype is {config.model.dtype!r}, expected 'float32', 'bfloat16' or "
                "'float16'."
            )
        if "num_classes" in config.model:
            raise InputError("num_classes comes from the dataset: leave it out of the config.")
        if not 0 <= config.label_smoothing < 1:
            raise InputError(
                f"label_smoothing is {config.label_smoothing}, expected 0 or a fraction below 1."
            )
        # Configs of older and of imported checkpoints do not have it.
        self._mixup_alpha = config.get("mixup_alpha", 0.0)
        if not 0 <= self._mixup_alpha < math.inf:
            raise InputError(
                f"mixup_alpha is {self._mixup_alpha}, expected a number such as 0.2, or 0 for no "
                "mixing."
            )
        self.config = config
        self.eval_batch_size = config.eval_batch_size
        self.eval_split = config.data.eval_split

    def source(self, split: str) -> data.Source:
        """The examples of one split, in a fixed order, cropped for evaluation."""
        # Configs of older checkpoints do not have it.
        return self._load(split, self.config.data.get("eval_crop", 1.0))

    def _load(self, split: str, eval_crop: float) -> data.Source:
        settings = self.config.data
        return data.load_source(
            settings.name,
            split,
            data_dir=settings.data_dir or None,
            image_size=settings.image_size or None,
            eval_crop=eval_crop,
        )

    def check(self) -> None:
        """Opens both splits and the network; raises `InputError` where they do not fit."""
        channels = self.image_shape[-1]
        for name in ("mean", "std"):
            values = self.config.data[name]
            are_numbers = all(isinstance(value, int | float) for value in values)
            if len(values) != channels or not are_numbers or (name == "std" and min(values) <= 0):
                raise InputError(
                    f"data.{name} is {tuple(values)}, expected {channels} number(s)"
                    f"{' above 0' if name == 'std' else ''}, one for each channel of the images."
                )
        self._augmentation()
        data.check_max_unreadable_fraction(self.config.data.max_unreadable_fraction)
        data.steps_per_epoch(
            self.examples_per_epoch, self.config.batch_size, self.config.data.drop_remainder
        )
        test_shape = self.source(self.eval_split).image_shape
        if test_shape != self.image_shape:
            raise InputError(
                f"The images of {self.eval_split!r} are {test_shape} and those of training "
                f"{self.image_shape}: set data.image_size."
            )

    @cached_property
    def _train_source(self) -> data.Source:
        # Augmentation crops for itself.
        return self._load(self.config.data.train_split, eval_crop=1.0)

    def _augmentation(self) -> data.Transform:
        """The random transform of the training images; `InputError` where it makes no sense."""
        settings = self.config.data
        check_choice("data.augmentation", settings.augmentation, ("pad_crop_flip", "inception"))
        inception_only = ("color_jitter", "randaugment_num_ops")
        unused = inception_only if settings.augmentation == "pad_crop_flip" else ("pad",)
        for name in unused:
            if settings[name]:
                raise InputError(
                    f"data.{name} is {settings[name]!r}, but data.augmentation="
                    f"{settings.augmentation!r} has no use for it: set it to 0, or choose the "
                    "other augmentation."
                )
        if settings.augmentation == "pad_crop_flip":
            return data.pad_crop_flip(settings.pad, settings.flip)
        height, width, channels = self.image_shape
        if height != width:
            raise InputError(
                f"The images are {height}x{width}, but data.augmentation='inception' makes "
                "squares: set data.image_size."
            )
        for name in inception_only:
            if settings[name] and channels != 3:
                raise InputError(
                    f"data.{name} is {settings[name]!r}, which needs RGB images, but these have "
                    f"{channels} channel(s): set it to 0."
                )
        return data.random_resized_crop(
            height,
            scale=settings.crop_scale,
            ratio=settings.crop_ratio,
            flip=settings.flip,
            color_jitter=settings.color_jitter,
            randaugment_num_ops=settings.randaugment_num_ops,
            randaugment_magnitude=settings.randaugment_magnitude,
        )

    @cached_property
    def model(self) -> nn.Module:
        """The network, with as many outputs as the dataset has classes."""
        arguments = self.config.model.to_dict()
        arguments["dtype"] = jnp.dtype(arguments["dtype"])
        return create_model(
            arguments.pop("name"), num_classes=self._train_source.num_classes, **arguments
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        return self._train_source.image_shape

    @property
    def examples_per_epoch(self) -> int:
        return len(self._train_source)

    @property
    def steps_per_epoch(self) -> int:
        return data.steps_per_epoch(
            self.examples_per_epoch, self.config.batch_size, self.config.data.drop_remainder
        )

    @property
    def batch_sizes(self) -> tuple[int, ...]:
        remainder = self.examples_per_epoch % self.config.batch_size
        if self.config.data.drop_remainder or not remainder:
            return (self.config.batch_size,)
        if self.examples_per_epoch < self.config.batch_size:
            return (remainder,)
        return (self.config.batch_size, remainder)

    def train_batches(self, start_step: int) -> Iterator[dict]:
        settings = self.config.data
        return data.train_batches(
            self._train_source,
            self._augmentation(),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            drop_remainder=settings.drop_remainder,
            start_step=start_step,
            num_workers=settings.num_workers,
            max_unreadable_fraction=settings.max_unreadable_fraction,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def eval_batches(self, split: str, batch_size: int) -> Iterator[dict]:
        return data.eval_batches(
            self.source(split),
            batch_size=batch_size,
            num_workers=self.config.data.num_workers,
            max_unreadable_fraction=self.config.data.get("max_unreadable_fraction", 0.0),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    def init(self, rng: jax.Array) -> dict:
        return self.model.init(rng, jnp.zeros((1, *self.image_shape)), train=False)

    def normalize(self, images: jax.Array) -> jax.Array:
        """Returns uint8 [B, H, W, C] in 0..255 as float32 with the dataset's mean and deviation."""
        mean = np.asarray(self.config.data.mean, np.float32)
        deviation = np.asarray(self.config.data.std, np.float32)
        return (images.astype(jnp.float32) / 255 - mean) / deviation

    def logits(self, variables: dict, images: jax.Array) -> jax.Array:
        """Returns float32 [B, classes] for uint8 images [B, H, W, C], in inference mode."""
        return self.model.apply(variables, self.normalize(images), train=False)

    def loss(self, variables: dict, batch: dict, rng: jax.Array):
        """Returns what `Task.loss` says; with MixUp, top-1 is against the unmixed labels."""
        images = self.normalize(batch["image"])
        mix = None
        if self._mixup_alpha:
            mix_rng, rng = jax.random.split(rng)
            mix = mixup(mix_rng, self._mixup_alpha)
            images = mix(images)
        logits, mutated = self.model.apply(
            variables,
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": rng},
        )
        targets = optax.smooth_labels(
            jax.nn.one_hot(batch["label"], logits.shape[-1]), self.config.label_smoothing
        )
        if mix is not None:
            targets = mix(targets)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        top1 = (logits.argmax(-1) == batch["label"]).mean()
        return loss, (mutated.get("batch_stats", {}), {"top1": top1})

    def evaluation_sums(self, variables: dict, batch: dict) -> dict[str, jax.Array]:
        logits = self.logits(variables, batch["image"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        hit = partial(_in_top, logits, batch["label"])
        return {
            "examples": batch["mask"].sum(),
            "loss": jnp.where(batch["mask"], losses, 0).sum(),
            "top1": (batch["mask"] & hit(1)).sum(),
            "top5": (batch["mask"] & hit(min(5, logits.shape[-1]))).sum(),
        }

    def summarize(self, sums: dict[str, float]) -> dict[str, float]:
        """Returns the mean loss, "top1" and "top5" as fractions, and the number of examples."""
        examples = sums["examples"]
        if not examples:
            raise InputError("The split to evaluate has no examples: name another split.")
        return {
            "loss": sums["loss"] / examples,
            "top1": sums["top1"] / examples,
            "top5": sums["top5"] / examples,
            "examples": int(examples),
        }


def mixup(rng: jax.Array, alpha: float) -> Callable[[jax.Array], jax.Array]:
    """Returns what mixes each example with its neighbour (Zhang et al., "mixup", ICLR 2018).

    It takes and returns float [B, ...]: images, or the probabilities that are their targets.

    Args:
      rng: draws one share for the whole batch.
      alpha: above 0; the share of the example itself is of Beta(alpha, alpha), made at least 1/2,
        which changes the distribution of the mixtures in nothing.
    """
    share = jax.random.beta(rng, alpha, alpha)
    share = jnp.maximum(share, 1 - share)
    return lambda x: share * x + (1 - share) * jnp.roll(x, 1, axis=0)


def _in_top(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether each label is among its k largest logits; equal logits count lower classes first."""
    return (jax.lax.top_k(logits, k)[1] == labels[:, None]).any(axis=-1)
