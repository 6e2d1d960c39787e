"""A trained network that tells the classes of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from shift_jax.data.class_names import ClassName, with_names
from shift_jax.errors import InputError
from shift_jax.models.network import Network
from shift_jax.models.pretrained import load_pretrained
from shift_jax.weights.shipped import weights_named

if TYPE_CHECKING:
    from jaxtyping import Array, Float


@dataclass(frozen=True, eq=False, kw_only=True)
class Classifier:
    """A trained classifier and what its images and classes are.

    Attributes:
      model: the network.
      variables: its variables.
      classes: names of the classes in the order of the outputs.
      image_shape: (height, width, channels) of the images.
      mean, std: of the channels, for pixels in 0..1.
      crop: fraction of the shorter side of an image that is kept.
    """

    model: Network
    variables: Mapping[str, Any]
    classes: tuple[ClassName, ...]
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float

    def probabilities(self, images: Float[np.ndarray, "b h w c"]) -> Float[Array, "b classes"]:
        """Returns the probability of each class, float32.

        Args:
          images: as `shift_jax.data.preprocessor(self)` prepares each.
        """
        # Linen makes its modules hashable, which its declaration as a dataclass hides.
        return _softmax(self.model, self.variables, images)  # pyright: ignore[reportArgumentType]

    def top(
        self, probabilities: Float[np.ndarray, " classes"], count: int
    ) -> list[tuple[ClassName, float]]:
        """Returns the most probable classes of one image, best first, at most `count`.

        Raises:
          InputError: the probabilities are not finite.
        """
        if not np.isfinite(probabilities).all():
            raise InputError(
                "The network's outputs are not finite, so its training must have failed: use an "
                "earlier checkpoint, or train it again."
            )
        best = np.argsort(-probabilities, kind="stable")[:count]
        return [(self.classes[index], float(probabilities[index])) for index in best]


# Compiled once for each size of a batch.
@partial(jax.jit, static_argnames="model")
def _softmax(model: Network, variables: Mapping[str, Any], images: Array) -> Array:
    return jax.nn.softmax(model.apply(variables, images, train=False))


def class_count(variables: Mapping[str, Any]) -> int:
    """Returns the number of classes that a network with these variables tells apart."""
    # The outputs are the last axis of a bias and of a kernel, of a convolution as well.
    return jax.tree.leaves(variables["params"]["classifier"])[0].shape[-1]


def named_classes(
    labels: Sequence[str], count: int, given: Sequence[ClassName] | None, what: str
) -> tuple[ClassName, ...]:
    """Returns the names of the classes of a network.

    Args:
      labels: those known of the network; where there are none, numbers take their place.
      count: the number of its classes.
      given: names that take the place of those; None for none.
      what: the network, for the message.

    Raises:
      InputError: another number of names than of classes.
    """
    classes = with_names(labels or [str(index) for index in range(count)])
    if given is not None:
        classes = tuple(given)
    if len(classes) != count:
        raise InputError(
            f"{what} tells {count} classes apart, but there are {len(classes)} names of classes: "
            "give a file with one for each by --labels=FILE."
        )
    return classes


def load_shipped_classifier(name: str, classes: Sequence[ClassName] | None = None) -> Classifier:
    """Returns a classifier that comes with the package.

    Args:
      name: one of `list_pretrained()`.
      classes: other names of its classes.

    Raises:
      InputError: there are no such weights, or they are not those of a classifier.
    """
    record = weights_named(name)
    if not record.num_classes:
        raise InputError(
            f"The network of {name} tells no classes apart: name weights of a classifier, such as "
            "shiftresnet20-3.cifar100."
        )
    model, variables = load_pretrained(name)
    return Classifier(
        model=model,
        variables=variables,
        classes=named_classes(record.class_names, record.num_classes, classes, name),
        image_shape=record.image_shape,
        mean=record.mean,
        std=record.std,
        crop=record.crop,
    )
