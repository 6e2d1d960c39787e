"""Face embedding: trained to tell identities apart, evaluated by verifying pairs (Section 3.3)."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
import optax

from shift_jax import data
from shift_jax.config import PAIR_PROTOCOLS
from shift_jax.counting import count_parameters
from shift_jax.errors import InputError, check_choice
from shift_jax.tasks.face_losses import FaceClassifier
from shift_jax.tasks.face_pairs import lfw_pairs, ytf_pairs
from shift_jax.tasks.image_task import ImageTask
from shift_jax.tasks.pairs import Pairs, all_pairs, random_pairs
from shift_jax.tasks.roc_picture import save_roc
from shift_jax.tasks.verification import verify

if TYPE_CHECKING:
    from pathlib import Path

    from shift_jax.config import FacesConfig
    from shift_jax.models.network import Network


class Faces(ImageTask):
    """The task of face embedding; implements `shift_jax.tasks.Task`.

    Args:
      config: of the experiment.

    Raises:
      InputError: the config sets num_classes.
    """

    config: FacesConfig
    best_metric = "auc"
    fractions = frozenset(
        {"top1", "accuracy", "accuracy_std", "auc", "eer"}
        | {f"tar_at_far_{far}" for far in ("0.1", "0.01", "0.001", "0.0001")}
    )

    def check(self) -> None:
        # In the config, checkpoints record whom they have seen, whatever happens to the folder.
        self.config.data.identities = tuple(self._trained_on)
        self.pairs(self.eval_split)
        super().check()

    @cached_property
    def _trained_on(self) -> list[str]:
        """The names of the identities to train on."""
        settings = self.config.data
        if settings.identities:
            return sorted(map(data.normalized, settings.identities))
        held_out = settings.held_out
        if settings.held_out_file:
            held_out = data.read_names(settings.held_out_file)
        names = self._names(settings.name, settings.data_dir)
        try:
            return data.split_identities(
                names, num_train=settings.num_identities, held_out=held_out, seed=self.config.seed
            )[0]
        except InputError as error:
            raise InputError(
                f"data.num_identities and data.held_out do not fit the data: {error}"
            ) from error

    def _names(self, name: str, data_dir: str) -> list[str]:
        if name == "identities" and not data_dir:
            raise InputError(
                "data.data_dir is not set: name the folder of identities, as in "
                "--config.data.data_dir=FACES."
            )
        return data.identity_names(name, data_dir or None)

    @cached_property
    def _train_source(self) -> data.Source:
        settings = self.config.data
        return self._load(settings.name, settings.data_dir, self._trained_on)

    def _load(self, name: str, data_dir: str, names: list[str]) -> data.LabeledSource:
        size = self.config.data.image_size
        return data.load_identities(name, data_dir or None, size, names=names)

    def _open(self, split: str) -> data.Source:
        """Opens the images that the pairs of a split need, each once."""
        return self._pairs_and_source(split)[1]

    def pairs(self, split: str) -> Pairs:
        """Returns the pairs that a split compares.

        Raises:
          InputError: no such split, or its files or numbers of pairs do not fit.
        """
        return self._pairs_and_source(split)[0]

    def _pairs_and_source(self, split: str) -> tuple[Pairs, data.DescribedSource]:
        check_choice("The split", split, PAIR_PROTOCOLS)
        if split not in self._compared:
            self._compared[split] = (
                self._open_benchmark(split) if split in ("lfw", "ytf") else self._open_others(split)
            )
        return self._compared[split]

    @cached_property
    def _compared(self) -> dict[str, tuple[Pairs, data.DescribedSource]]:
        return {}

    def _open_benchmark(self, split: str) -> tuple[Pairs, data.DescribedSource]:
        settings = self.config.verification
        if not settings.data_dir:
            raise InputError(
                f"The split {split!r} needs a folder of aligned faces: name it by --data_dir for "
                "eval.py or --config.verification.data_dir for train.py."
            )
        names = {"lfw": "pairs.txt", "ytf": "splits.txt"}
        path = settings.pairs_file or os.path.join(settings.data_dir, names[split])
        if split == "lfw":
            pairs = lfw_pairs(path, settings.data_dir)
        else:
            pairs = ytf_pairs(path, settings.data_dir, settings.seed, settings.num_frame_pairs)
        trained_on = set(self._trained_on)
        seen = {
            position: image
            for position, image in enumerate(pairs.images)
            if data.normalized(os.path.relpath(image, settings.data_dir).split(os.sep)[0])
            in trained_on
        }
        pairs = pairs.without(seen)
        return pairs, data.ImageFiles(tuple(pairs.images), self.config.data.image_size)

    def _open_others(self, split: str) -> tuple[Pairs, data.DescribedSource]:
        """Opens the pairs of identities that were not trained on."""
        settings = self.config.verification
        where = (self.config.data.name, self.config.data.data_dir)
        if settings.data_dir:
            where = ("identities", settings.data_dir)
        names = sorted(set(self._names(*where)) - set(self._trained_on))
        if not names:
            raise InputError(
                f"The split {split!r} compares identities that are not trained on, and there are "
                "none: set data.held_out to their number, or verification.data_dir to a folder of "
                "other identities."
            )
        source = self._load(*where, names)
        try:
            if split == "all":
                pairs = all_pairs(source.labels, num_folds=settings.num_folds, seed=settings.seed)
            else:
                pairs = random_pairs(
                    source.labels, settings.num_pairs, settings.seed, num_folds=settings.num_folds
                )
        except InputError as error:
            raise InputError(
                f"The {len(names)} identities that are not trained on do not have the pairs that "
                f"verification.num_pairs and num_folds ask for: {error}"
            ) from error
        return pairs, data.Subset(source, np.asarray(pairs.images))

    @cached_property
    def model(self) -> FaceClassifier:
        """The embedding network with its head."""
        loss = self.config.loss
        return FaceClassifier(
            self.network,
            self._train_source.num_classes,
            center_rate=loss.center_rate if loss.center_weight else None,
            margin=loss.margin,
            margin_size=loss.margin_size,
            margin_scale=loss.margin_scale,
        )

    @cached_property
    def network(self) -> Network:
        """The embedding network alone, which does not depend on the identities."""
        return self._network(num_classes=0)

    @property
    def _sampling(self) -> str:
        return self.config.data.sampling

    @property
    def _max_unreadable_in_evaluation(self) -> float:
        return 1.0  # Pairs of unreadable images are left out and counted.

    def init(self, rng: jax.Array) -> dict:
        images = jnp.zeros((1, *self.image_shape))
        return dict(self.model.init(rng, images, jnp.zeros(1, jnp.int32), train=False))

    def embeddings(self, variables: dict, images: jax.Array) -> jax.Array:
        """Returns float32 [B, D], not of unit length, for uint8 [B, H, W, C], in inference mode."""
        network = {key: tree["network"] for key, tree in variables.items() if "network" in tree}
        return self.network.apply(network, self.normalize(images), train=False).astype(jnp.float32)

    def loss(self, variables: dict, batch: dict, rng: jax.Array):
        """Returns what `Task.loss` documents: softmax + weight · center loss (Wen et al., Eq. 5).

        The metric "top1" uses the logits with their margin, if there is one.
        """
        (logits, center), mutated = self.model.apply(
            variables,
            self.normalize(batch["image"]),
            batch["label"],
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": rng},
        )
        targets = optax.smooth_labels(
            jax.nn.one_hot(batch["label"], logits.shape[-1]), self.config.label_smoothing
        )
        softmax = optax.softmax_cross_entropy(logits, targets).mean()
        metrics = {"top1": (logits.argmax(-1) == batch["label"]).mean()}
        weight = self.config.loss.center_weight
        if weight:
            metrics |= {"softmax_loss": softmax, "center_loss": center}
        return softmax + weight * center, (mutated.get("batch_stats", {}), metrics)

    def evaluation_outputs(self, variables: dict, batch: dict) -> dict[str, jax.Array]:
        return {"embeddings": self.embeddings(variables, batch["image"]), "mask": batch["mask"]}

    def summarize(self, split: str, outputs: dict[str, np.ndarray]) -> dict[str, float]:
        """Returns numbers of `Verification`, or NaN as "auc" if an embedding is not finite."""
        if not np.isfinite(outputs["embeddings"]).all():
            return {"auc": float("nan")}
        pairs, scores = self._scores(split, outputs)
        result = verify(scores, pairs.same, pairs.folds)
        return {
            "accuracy": result.accuracy,
            "accuracy_std": result.accuracy_std,
            "auc": result.auc,
            "eer": result.eer,
            **{f"tar_at_far_{far:g}": t for far, t in result.tar_at_far.items() if t is not None},
            "threshold": result.threshold,
            "pairs": len(scores),
            "pairs_left_out": pairs.num_left_out,
        }

    def report(self, split: str, outputs: dict[str, np.ndarray], path: Path) -> tuple[str, dict]:
        """Also draws the ROC curve, beside `path`."""
        pairs, scores = self._scores(split, outputs)
        result = verify(scores, pairs.same, pairs.folds)
        picture = path.with_suffix(".png")
        save_roc(picture, {self.config.model.name: (scores, pairs.same)})
        size = self.config.data.image_size
        parameters = count_parameters(self.network, (size, size, 3))  # Table 9.
        lines = (
            f"{self.config.model.name}: {parameters:,} parameters, without the head over the "
            f"{len(self._trained_on):,} identities trained on",
            f"{split}: {pairs.describe()}",
            result.as_text(),
            f"ROC curve in {picture}",
        )
        record = {
            **self.summarize(split, outputs),
            **result.as_dict(),
            "parameters": parameters,
            "missing": list(pairs.missing),
            "roc": str(picture),
        }
        return "\n".join(lines), record

    def _scores(self, split: str, outputs: dict[str, np.ndarray]) -> tuple[Pairs, np.ndarray]:
        pairs, source = self._pairs_and_source(split)
        readable = outputs["mask"][: len(pairs.images)]
        unreadable = {int(i): source.describe(int(i)) for i in np.flatnonzero(~readable)}
        pairs = pairs.without(unreadable)
        return pairs, pairs.scores(outputs["embeddings"][: len(pairs.images)])
