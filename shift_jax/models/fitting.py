"""Fits the tensors of a file to a network, and finds the network that they fit best."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from shift_jax.errors import InputError
from shift_jax.models.network import Network
from shift_jax.models.registry import ModelRecord, create_model, list_models, model_record
from shift_jax.weights import convert

# Networks whose names and shapes are compared with a file's; their sizes are the nearest to it.
_CANDIDATES = 4


def fit(
    record: ModelRecord,
    arguments: Mapping[str, Any],
    tensors: Mapping[str, np.ndarray],
    layout: convert.TensorLayout,
) -> dict[str, Any]:
    """Returns `num_classes`, `image_channels` and `variables` of a network in a file.

    Args:
      record: of the network.
      arguments: of `create_model`, without the number of classes.
      tensors: of the file; names that a wrapper has put before all of them are ignored.
      layout: of the tensors.

    Raises:
      MisfitError: a tensor is missing, left over, or of another shape.
      InputError: a tensor is of another type or not finite.
    """
    probe = _shapes(record, arguments, None if record.num_classes is None else 1)
    expected = [name for name, *_ in convert.expected_tensors(probe, layout)]
    tensors = convert.without_shared_prefixes(tensors, expected)
    classes = convert.class_count(tensors, probe, layout)
    if classes is None:
        classes = record.num_classes
    channels = convert.image_channels(tensors, probe, layout)
    shapes = _shapes(record, arguments, classes, channels)
    return {
        "num_classes": classes or 0,
        "image_channels": channels,
        "variables": convert.to_variables(tensors, shapes, layout),
    }


def nearest_network(
    record: ModelRecord, arguments: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> str:
    """Returns a sentence, after a blank, on the network that a PyTorch file fits best.

    Args:
      record, arguments: of the network that the file does not fit.
      tensors: of the file.

    Returns:
      "" where no other network is nearer.
    """
    best, best_score = None, _score(record, arguments, tensors)
    for other, others_arguments in _candidates(tensors):
        score = _score(other, others_arguments, tensors)
        if score > best_score:
            best, best_score = (other, others_arguments), score
    if best is None:
        return ""
    other, others_arguments = best
    name = ", ".join([other.name, *(f"{key}={value!r}" for key, value in others_arguments.items())])
    try:
        fit(
            other,
            others_arguments,
            tensors,
            other.known_torch_layout(others_arguments).tensor_layout(),
        )
    except convert.MisfitError as error:
        return f" The nearest network is {name}, but for that one {error.difference}."
    except InputError as error:
        return f" The nearest network is {name}. {error}"
    return f" It fits {name}."


def _candidates(
    tensors: Mapping[str, np.ndarray],
) -> Iterator[tuple[ModelRecord, dict[str, Any]]]:
    """Yields the published networks whose numbers of parameters are nearest to the file's."""
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    size = sum(array.size for name, array in tensors.items() if not name.endswith(statistics))
    networks = [
        (abs(math.log(max(size, 1) / count.parameters)), record, dict(count.arguments))
        for record in map(model_record, list_models())
        for count in record.counts
        if record.torch_layout is not None
    ]
    networks.sort(key=lambda network: network[0])
    for _, record, arguments in networks[:_CANDIDATES]:
        arguments.pop("num_classes", None)
        yield record, arguments


def _score(
    record: ModelRecord, arguments: Mapping[str, Any], tensors: Mapping[str, np.ndarray]
) -> float:
    """The fraction of all tensors, the file's and the network's, that both have alike."""
    layout = record.known_torch_layout(arguments).tensor_layout()
    shapes = _shapes(record, arguments, None if record.num_classes is None else 1)
    expected = {
        name: (reorder, shape) for name, reorder, shape in convert.expected_tensors(shapes, layout)
    }
    tensors = convert.without_shared_prefixes(tensors, expected)
    alike = sum(
        convert.fits(tensors[name], *expected[name]) for name in expected if name in tensors
    )
    return alike / len(expected.keys() | tensors.keys())


def _shapes(
    record: ModelRecord, arguments: Mapping[str, Any], classes: int | None, channels: int = 3
) -> Mapping[str, Any]:
    network = create_model(record.name, num_classes=classes, **arguments)
    height, width, _ = record.image_shape
    # Linen makes its modules hashable, which its declaration as a dataclass hides.
    return _shapes_of(network, (height, width, channels))  # pyright: ignore[reportArgumentType]


@lru_cache(maxsize=64)
def _shapes_of(network: Network, image_shape: tuple[int, int, int]) -> Mapping[str, Any]:
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x), images)
