"""A trained network, of a run or shipped, with the images that it was evaluated on."""

from __future__ import annotations

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
from shift_jax.training.evaluation import TrainedModel, checkpoint_of
from shift_jax.weights.shipped import weights_named

if TYPE_CHECKING:
    from jaxtyping import Float

# Of a network for 224×224 images a module's activations are some megabytes for each.
_BATCH_SIZE = 20


@dataclass(frozen=True)
class TrainedNetwork:
    """A network with its weights, read without its dataset.

    Attributes:
      name: what it is, for titles.
      model: from float images [B, H, W, C], called as `model(images)`.
      variables: nested dicts of arrays.
      image_shape: (height, width, channels) of images that it takes.
      mean, std: of the channels, for pixels in 0..1.
      split: that it was evaluated on.
      open_split: opens one split of its dataset; InputError where it cannot.
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
        """Yields images spread evenly over a split, normalised, in batches of one size at most.

        Images that cannot be read are left out.

        Args:
          split: its name.
          number: how many; all where there are not more.

        Raises:
          InputError: the split cannot be opened, or has images of another number of channels.
        """
        source = self.open_split(split)
        if source.image_shape[-1] != len(self.mean):
            raise InputError(
                f"The images of {split!r} have {source.image_shape[-1]} channels and those of "
                f"{self.name} {len(self.mean)}: name the dataset that it was trained on."
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
    workdir: str | None, weights: str | None, data_dir: str | None = None
) -> TrainedNetwork:
    """Returns the network of a run's newest checkpoint, or one that comes with the package.

    Args:
      workdir: folder of the run.
      weights: name of a shipped network instead, such as "shiftresnet20-9.cifar100".
      data_dir: where its dataset is; None is where the run's config says, or TFDS's default.

    Raises:
      InputError: not exactly one of the two, no such run, or no such weights.
    """
    if (workdir is None) == (weights is None):
        raise InputError("Give either --workdir=DIR or --weights=NAME.")
    if workdir:
        source, title = checkpoint_of(Path(workdir), "latest"), Path(workdir).name
    else:
        source, title = weights_named(weights), weights
    trained = TrainedModel(source, data_dir)
    config = trained.config
    arguments = config.model.to_dict()
    name, dtype = arguments.pop("name"), jnp.dtype(arguments.pop("dtype"))
    record = model_record(name)
    shape = record.image_shape if workdir else source.image_shape
    # No classifier, so that the dataset need not be there to tell the classes.
    classes = None if record.num_classes is None else 0
    return TrainedNetwork(
        name=f"{name} of {title}" if workdir else title,
        model=create_model(name, num_classes=classes, dtype=dtype, **arguments),
        # Of faces it is the part of what was trained that makes the embeddings.
        variables={key: tree.get("network", tree) for key, tree in trained.variables.items()},
        image_shape=(*shape[:2], len(config.data.mean)),
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
        split=trained.task.eval_split,
        open_split=trained.task.source,
    )
