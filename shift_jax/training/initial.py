"""The weights that a training begins from, if the config names some."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np
from absl import logging
from flax.traverse_util import unflatten_dict

from shift_jax.config import from_dict
from shift_jax.errors import InputError, did_you_mean
from shift_jax.models.read_network import read_network
from shift_jax.training.runs.checkpoint_files import read_manifest, restore_variables
from shift_jax.training.runs.selection import checkpoint_of
from shift_jax.training.runs.trained_data import learned_class_names
from shift_jax.training.runs.workdir import read_config
from shift_jax.training.step import TrainState
from shift_jax.weights.convert import flat
from shift_jax.weights.shipped import (
    WeightRecord,
    list_pretrained,
    read_weights,
    weights_named,
)

if TYPE_CHECKING:
    from shift_jax.config import ExperimentConfig


class InitialWeights(NamedTuple):
    """Weights to begin from, as far as they fit.

    Attributes:
      variables: "params" and "batch_stats" as nested dicts of numpy arrays, without the classifier
        where that begins anew.
      has_classifier: whether the classifier is among them.
    """

    variables: dict[str, Any]
    has_classifier: bool


def load_initial(
    config: ExperimentConfig, template: TrainState, class_names: Sequence[str] | None
) -> InitialWeights:
    """Reads the weights that `config.init_from` names.

    Args:
      config: the experiment.
      template: shapes of its state.
      class_names: names of its classes; None if they have none.

    Raises:
      InputError: no such weights, or some that do not fit the network and are not the classifier's;
        the message has their names.
    """
    source = config.init_from
    theirs, data, learned = _read(config)
    _warn_of_other_images(source, data, config)
    ours = flat({"params": template.params, "batch_stats": template.batch_stats})
    different = [
        name
        for name in ours.keys() | theirs.keys()
        if _shape(ours.get(name)) != _shape(theirs.get(name))
    ]
    if wrong := sorted(name for name in different if not _of_classifier(name)):
        name = wrong[0]
        more = f", and so do {len(wrong) - 1} more" if wrong[1:] else ""
        raise InputError(
            f"init_from is {source!r}, which does not fit {config.model.name}: {name} is "
            f"{_described(theirs.get(name))} there and {_described(ours.get(name))} here{more}; "
            "give the model and the arguments that it was trained with."
        )
    has_classifier = not different
    if learned is not None and class_names is not None:
        has_classifier &= learned == tuple(class_names)
    taken = {
        name: np.asarray(array, ours[name].dtype)
        for name, array in theirs.items()
        if has_classifier or not _of_classifier(name)
    }
    return InitialWeights(unflatten_dict(taken, sep="/"), has_classifier)


def trained_config(source: str) -> ExperimentConfig:
    """Returns the config that weights were trained with.

    Args:
      source: as the field `init_from` has it, but for a file.

    Raises:
      InputError: no such weights, or a file.
    """
    path = Path(os.path.expanduser(source))
    if (path / "manifest").is_dir():
        return from_dict(read_manifest(path)["config"])
    if path.is_dir():
        return from_dict(read_config(path))
    if path.exists():
        raise InputError(
            f"{source} is a file, which does not say what images its network reads: make a run of "
            "it by shift-jax import-weights, and name that."
        )
    return from_dict(read_weights(_shipped(source))[1])


def with_initial(state: TrainState, initial: InitialWeights) -> TrainState:
    """Returns a state at step 0 with these weights in place of its own."""
    new = flat(initial.variables)

    def replaced(variables: Mapping[str, Any]) -> dict[str, Any]:
        leaves = {
            name: jax.make_array_from_callback(old.shape, old.sharding, new[name].__getitem__)
            if name in new
            else old
            for name, old in flat(variables).items()
        }
        return {"batch_stats": {}} | unflatten_dict(leaves, sep="/")

    own = replaced({"params": state.params, "batch_stats": state.batch_stats})
    return state.replace(**own, ema=replaced(state.ema) if state.ema else state.ema)


def _read(
    config: ExperimentConfig,
) -> tuple[dict[str, Any], Mapping[str, Any], tuple[str, ...] | None]:
    """Returns the variables by path, the section `data` of their config, and their classes."""
    source = config.init_from
    if os.path.isdir(source):
        path = Path(source)
        if not (path / "manifest").is_dir():
            path = checkpoint_of(path, "latest")
        variables, theirs = restore_variables(path)
        return flat(variables), theirs.get("data", {}), learned_class_names(read_manifest(path))
    if os.path.exists(source):
        arguments = config.model.arguments
        network = read_network(source, config.model.name, arguments)
        if network.arguments != arguments:
            different = dict(network.arguments.items() - arguments.items())
            raise InputError(
                f"init_from is {source!r}, whose network needs other arguments: set "
                f"{', '.join(f'model.{key}={value!r}' for key, value in different.items())}."
            )
        return flat(network.variables), network.data or {}, network.class_names
    record = _shipped(source)
    variables, theirs = read_weights(record)
    return flat(variables), theirs["data"], record.class_names or None


def _shipped(source: str) -> WeightRecord:
    if source not in list_pretrained():
        raise InputError(
            f"{source} is neither the folder of a run or of a checkpoint, nor a file of weights, "
            f"nor one of {', '.join(list_pretrained())}.{did_you_mean(source, list_pretrained())}"
        )
    return weights_named(source)


def _warn_of_other_images(source: str, data: Mapping[str, Any], config: ExperimentConfig) -> None:
    ours = {"mean": config.data.mean, "std": config.data.std}
    for name, value in ours.items():
        if name in data and not np.allclose(data[name], value, atol=1e-3):
            logging.warning(
                "%s",
                f"{source} was trained on images with data.{name}={tuple(data[name])}, but here it "
                f"is {value}.",
            )


def _of_classifier(name: str) -> bool:
    return name.split("/")[1] == "classifier"


def _shape(leaf: Any) -> tuple[int, ...] | None:
    return None if leaf is None else tuple(leaf.shape)


def _described(leaf: Any) -> str:
    return "missing" if leaf is None else f"of shape {tuple(leaf.shape)}"
