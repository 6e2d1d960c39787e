"""What the tasks on images share: sources, augmentation, batches and normalization."""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from shift_jax import data
from shift_jax.errors import InputError
from shift_jax.models import create_model
from shift_jax.ops.channels import per_channel

if TYPE_CHECKING:
    from pathlib import Path

    from shift_jax.config import ExperimentConfig
    from shift_jax.models.network import Network


class ImageTask(abc.ABC):
    """A task whose batches have "image" uint8 [B, H, W, C] and mostly "label" int32 [B].

    Evaluation batches have "mask" bool [B] too. A subclass defines the examples of a split
    (`_open`, `_train_source`), the network, the loss and the metrics.

    Args:
      config: of the experiment.

    Attributes:
      fractions: see `shift_jax.tasks.Task`.

    Raises:
      InputError: the config sets num_classes.
    """

    fractions: frozenset[str]

    def __init__(self, config: ExperimentConfig):
        if "num_classes" in config.model.arguments:
            raise InputError(
                "model.num_classes comes from the dataset: leave it out of the config."
            )
        self.config = config
        self.eval_batch_size = config.eval_batch_size
        self.eval_split = config.data.eval_split
        self._opened: dict[str, data.Source] = {}

    def source(self, split: str) -> data.Source:
        """Returns the examples of a split, in a fixed order and for evaluation; opens it once."""
        if split not in self._opened:
            self._opened[split] = self._open(split)
        return self._opened[split]

    @abc.abstractmethod
    def _open(self, split: str) -> data.Source:
        """Opens the examples of a split."""

    @property
    @abc.abstractmethod
    def _train_source(self) -> data.Source:
        """The examples to train on, opened once."""

    def check(self) -> None:
        """Opens both splits; raises `InputError` if they do not fit each other or the config."""
        channels = self.image_shape[-1]
        for name in ("mean", "std"):
            values = getattr(self.config.data, name)
            if len(values) != channels:
                raise InputError(
                    f"data.{name} is {values}, expected {channels} number(s), one for each channel "
                    "of the images."
                )
        self._augmentation()
        data.steps_per_epoch(
            self.examples_per_epoch, self.config.batch_size, self.config.data.drop_remainder
        )
        test_shape = self.source(self.eval_split).image_shape
        if test_shape != self.image_shape:
            raise InputError(
                f"The images of {self.eval_split!r} are {test_shape} and the training images "
                f"{self.image_shape}: set data.image_size."
            )

    def _augmentation(self) -> data.Transform:
        """Returns the random transform of the training images; InputError if it does not fit."""
        settings = self.config.data
        inception_only = ("color_jitter", "randaugment_num_ops")
        unused = inception_only if settings.augmentation == "pad_crop_flip" else ("pad",)
        for name in unused:
            value = getattr(settings, name)
            if value:
                raise InputError(
                    f"data.{name} is {value!r}, but data.augmentation="
                    f"{settings.augmentation!r} does not use it: set it to 0, or choose the other "
                    "augmentation."
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
            value = getattr(settings, name)
            if value and channels != 3:
                raise InputError(
                    f"data.{name} is {value!r}, which needs RGB images, but these have "
                    f"{channels} channel(s): set it to 0."
                )
        smallest, largest = settings.crop_scale
        narrowest, widest = settings.crop_ratio
        return data.random_resized_crop(
            height,
            scale=(smallest, largest),
            ratio=(narrowest, widest),
            flip=settings.flip,
            color_jitter=settings.color_jitter,
            randaugment_num_ops=settings.randaugment_num_ops,
            randaugment_magnitude=settings.randaugment_magnitude,
        )

    def _network(self, **more) -> Network:
        """Returns the network of the config, with more arguments if given."""
        model = self.config.model
        return create_model(
            model.name,
            dtype=jnp.dtype(model.dtype),
            initialization=model.initialization,
            **model.arguments,
            **more,
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of one image."""
        return self._train_source.image_shape

    @property
    def num_classes(self) -> int | None:
        return self._train_source.num_classes

    @property
    def training_data(self) -> data.Fingerprint:
        return data.fingerprint(self._train_source)

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

    def train_batches(self, start_step: int) -> data.Batches:
        settings = self.config.data
        return data.train_batches(
            self._train_source,
            self._augmentation(),
            batch_size=self.config.batch_size,
            seed=self.config.seed,
            sampling=self._sampling,
            drop_remainder=settings.drop_remainder,
            start_step=start_step,
            num_workers=settings.num_workers,
            max_unreadable_fraction=settings.max_unreadable_fraction,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    @property
    def _sampling(self) -> str:
        return "uniform"

    @property
    def _max_unreadable_in_evaluation(self) -> float:
        return self.config.data.max_unreadable_fraction

    def eval_batches(self, split: str, batch_size: int) -> data.Batches:
        return data.eval_batches(
            self.source(split),
            batch_size=batch_size,
            num_workers=self.config.data.num_workers,
            max_unreadable_fraction=self._max_unreadable_in_evaluation,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )

    @abc.abstractmethod
    def summarize(self, split: str, outputs: dict) -> dict[str, float]: ...

    def report(self, split: str, outputs: dict, path: Path) -> tuple[str, dict]:
        metrics = self.summarize(split, outputs)
        lines = [
            f"{split} {key.replace('top', 'top-')} "
            + (f"{100 * value:.2f} %" if key in self.fractions else f"{value:,.6g}")
            for key, value in metrics.items()
        ]
        return "\n".join(lines), metrics

    def draw(self, split: str, outputs: dict, path: Path) -> None:  # noqa: B027 (an option)
        """Draws nothing: the metrics say it all."""

    def normalize(self, images: jax.Array) -> jax.Array:
        """Returns uint8 [B, H, W, C] in 0..255 as float32, standardized by the config."""
        mean = np.asarray(self.config.data.mean, np.float32)
        deviation = np.asarray(self.config.data.std, np.float32)
        x = images.astype(jnp.float32) / 255
        return (x - per_channel(mean, x)) / per_channel(deviation, x)
