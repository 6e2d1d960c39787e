"""Image classification: softmax cross-entropy, top-1 and top-5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import optax
from absl import logging

from shift_jax import data
from shift_jax.errors import InputError
from shift_jax.tasks.image_task import ImageTask

if TYPE_CHECKING:
    from shift_jax.config import ClassificationConfig
    from shift_jax.models.network import Network


@dataclass(frozen=True)
class LearnedClasses:
    """The classes of a trained network.

    Attributes:
      count: how many.
      names: of the classes, in the order of the outputs; None if nothing says so.
      allow_subset: whether an evaluated split may lack some classes and have others, whose examples
        are left out.
    """

    count: int
    names: tuple[str, ...] | None
    allow_subset: bool = False

    def of(self, source: data.Source, split: str) -> data.Source:
        """Returns the examples of a split, labeled by these classes; InputError for others."""
        if self.names is not None and source.class_names is not None:
            return data.known_classes(source, self.names, allow_subset=self.allow_subset)
        if source.num_classes != self.count:
            raise InputError(
                f"The network tells {self.count:,} classes apart, but {split!r} has "
                f"{source.num_classes:,}: name a dataset of the classes that it learned."
            )
        if self.names is None and source.class_names is not None:
            logging.warning(
                "Nothing says which classes the network learned: the %d labels of %r are taken to "
                "be its own.",
                self.count,
                split,
            )
        return source


class Classification(ImageTask):
    """The classification task; implements `shift_jax.tasks.Task`.

    Args:
      config: of the experiment.

    Raises:
      InputError: the config sets num_classes.
    """

    config: ClassificationConfig
    best_metric = "top1"
    fractions = frozenset({"top1", "top5"})

    _learned: LearnedClasses | None = None

    def evaluate_as(self, learned: LearnedClasses) -> None:
        """Evaluates a trained network: the labels are those of its classes from now on.

        From then on, opening a split raises InputError if its classes are not those of the network.
        """
        self._learned = learned

    def _open(self, split: str) -> data.Source:
        source = self._load(split, self.config.data.eval_crop)
        return self._learned.of(source, split) if self._learned else source

    @cached_property
    def _train_source(self) -> data.Source:
        # The augmentation does the cropping.
        return self._load(self.config.data.train_split, eval_crop=1.0)

    def _load(self, split: str, eval_crop: float) -> data.Source:
        settings = self.config.data
        return data.load_source(
            settings.name,
            split,
            data_dir=settings.data_dir or None,
            image_size=settings.image_size or None,
            eval_crop=eval_crop,
            class_splits=(settings.train_split, settings.eval_split),
        )

    @cached_property
    def model(self) -> Network:
        """The network, with as many outputs as the dataset has classes."""
        learned = self._learned
        return self._network(
            num_classes=learned.count if learned else self._train_source.num_classes
        )

    def init(self, rng: jax.Array) -> dict:
        return self.model.init(rng, jnp.zeros((1, *self.image_shape)), train=False)

    def logits(self, variables: dict, images: jax.Array) -> jax.Array:
        """Returns float32 [B, classes] for uint8 images [B, H, W, C], in inference mode."""
        return self.model.apply(variables, self.normalize(images), train=False)

    def loss(self, variables: dict, batch: dict, rng: jax.Array):
        """Returns what `Task.loss` documents; with MixUp, top-1 is against the unmixed labels."""
        images = self.normalize(batch["image"])
        mix = None
        if self.config.mixup_alpha:
            mix_rng, rng = jax.random.split(rng)
            mix = mixup(mix_rng, self.config.mixup_alpha)
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

    def evaluation_outputs(self, variables: dict, batch: dict) -> dict[str, jax.Array]:
        logits = self.logits(variables, batch["image"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
        hit = partial(_in_top, logits, batch["label"])
        return {
            "examples": batch["mask"].sum(),
            "loss": jnp.where(batch["mask"], losses, 0).sum(),
            "top1": (batch["mask"] & hit(1)).sum(),
            "top5": (batch["mask"] & hit(min(5, logits.shape[-1]))).sum(),
        }

    def summarize(self, split: str, outputs: dict[str, float]) -> dict[str, float]:
        """Returns the mean loss, "top1" and "top5" as fractions, and the number of examples."""
        examples = outputs["examples"]
        if not examples:
            raise InputError("The split has no examples to evaluate: name another split.")
        return {
            "loss": outputs["loss"] / examples,
            "top1": outputs["top1"] / examples,
            "top5": outputs["top5"] / examples,
            "examples": int(examples),
        }


def mixup(rng: jax.Array, alpha: float) -> Callable[[jax.Array], jax.Array]:
    """Returns a function that mixes each example with its neighbor (Zhang et al., ICLR 2018).

    The function takes and returns float [B, ...]: images, or the probabilities that are their
    targets.

    Args:
      rng: draws one share for the whole batch.
      alpha: above 0. The share of the example itself follows Beta(alpha, alpha), mirrored to be at
        least 1/2, which leaves the distribution of the mixtures unchanged.
    """
    share = jax.random.beta(rng, alpha, alpha)
    share = jnp.maximum(share, 1 - share)
    return lambda x: share * x + (1 - share) * jnp.roll(x, 1, axis=0)


def _in_top(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """Whether each label is among its k largest logits; ties favor lower classes."""
    return (jax.lax.top_k(logits, k)[1] == labels[:, None]).any(axis=-1)
