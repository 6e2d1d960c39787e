"""A trained network, from a run or shipped, with the images of its evaluation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from shift_jax import data
from shift_jax.errors import InputError
from shift_jax.models import create_model, model_record
from shift_jax.tasks.image_task import ImageTask
from shift_jax.training.evaluation import TrainedModel
from shift_jax.training.runs.selection import checkpoint_of
from shift_jax.weights.shipped import WeightRecord, weights_named

if TYPE_CHECKING:
    from jaxtyping import Float

# A module's activations for an image of 224×224 take some megabytes.
_BATCH_SIZE = 20


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its weights, read without its dataset.

    Attributes:
      name: a name for titles.
      model: the network, called as `model(images)` on float images [B, H, W, C].
      variables: nested dicts of arrays.
      image_shape: (height, width, channels) of the network's images.
      mean, std: the statistics of the channels, for pixels in 0..1.
      split: the split of the evaluation.
      open_split: a function that opens a split of the dataset, or raises InputError.
    """

    name: str
    model: nn.Module
    variables: Mapping[str, Any]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    split: str
    open_split: Callable[[str], data.Source]

    def images(self, split: str, number: int) -> Iterator[Float[np.ndarray, "b h w c"]]:
        """Yields batches of normalized images, spread evenly over a split.

        Unreadable images are left out.

        Args:
          split: the name of the split.
          number: the number of images; a smaller split yields all of its images.

        Raises:
          InputError: the split cannot be opened, or its images have other channels.
        """
        source = self.open_split(split)
        if source.image_shape[-1] != len(self.mean):
            raise InputError(
                f"The images of {split!r} have {source.image_shape[-1]} channels, but those of "
                f"{self.name} have {len(self.mean)}: name the dataset of its training."
            )
        chosen = np.linspace(0, len(source) - 1, min(number, len(source))).astype(int)
        for start in range(0, len(chosen), _BATCH_SIZE):
            batch = []
            for index in chosen[start : start + _BATCH_SIZE]:
                try:
                    batch.append(source[int(index)]["image"])
                except data.UnreadableImageError:
                    continue
            if batch:
                pixels = np.stack(batch).astype(np.float32) / 255
                yield ((pixels - self.mean) / self.std).astype(np.float32)


def trained_network(
    workdir: str | os.PathLike[str] | None,
    weights: str | None,
    data_dir: str | os.PathLike[str] | None = None,
) -> TrainedNetwork:
    """Returns the network of a run's newest checkpoint, or one that comes with the package.

    Args:
      workdir: the folder of a run.
      weights: the name of a shipped network instead, such as "shiftresnet20-3.cifar100".
      data_dir: the folder of the dataset; None for that of the run's config, or TFDS's default.

    Raises:
      InputError: both or none of workdir and weights, no such run, or no such weights.
    """
    if (workdir is None) == (weights is None):
        raise InputError("Give either --workdir=DIR or --weights=NAME.")
    if workdir:
        source, title = checkpoint_of(Path(workdir), "latest"), Path(workdir).name
    else:
        assert weights is not None
        source, title = weights_named(weights), weights
    trained = TrainedModel(source, data_dir)
    config = trained.config
    name = config.model.name
    record = model_record(name)
    shape = source.image_shape if isinstance(source, WeightRecord) else record.image_shape
    assert isinstance(trained.task, ImageTask)
    # Without a classifier the dataset, which tells the number of classes, may be missing.
    classes = None if record.num_classes is None else 0
    return TrainedNetwork(
        name=f"{name} of {title}" if workdir else title,
        model=create_model(
            name,
            num_classes=classes,
            dtype=jnp.dtype(config.model.dtype),
            initialization=config.model.initialization,
            **config.model.arguments,
        ),
        # In a run on faces, "network" computes the embeddings.
        variables={key: tree.get("network", tree) for key, tree in trained.variables.items()},
        image_shape=(shape[0], shape[1], len(config.data.mean)),
        mean=config.data.mean,
        std=config.data.std,
        split=trained.task.eval_split,
        open_split=trained.task.source,
    )
