"""Configs as nested dicts: in config.json, in checkpoints, and as train.py's flags change them."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

from shift_jax.config.experiment import TASKS, ExperimentConfig
from shift_jax.config.setting import converted, walk, with_tuples
from shift_jax.errors import InputError, did_you_mean
from shift_jax.files import absolute_path, usable_path

# Imported weights of an unknown task once had it, although nothing read it.
_OBSOLETE = ("", "label_smoothing")


def nested(config: ExperimentConfig) -> dict[str, Any]:
    """Returns a config as nested dicts whose values are the config's own, tuples included.

    The arguments of the model stand beside its name, as in config.json.
    """
    values = dataclasses.asdict(config)
    values["model"] |= values["model"].pop("arguments")
    return {"task": config.task, **values}


def to_dict(config: ExperimentConfig) -> dict[str, Any]:
    """Returns a config as nested dicts of plain JSON values, as config.json holds it."""
    return json.loads(json.dumps(nested(config)))


def from_dict(values: Mapping[str, Any]) -> ExperimentConfig:
    """Returns the config that nested dicts describe, in the class of its task.

    JSON's lists become tuples. A field that an older config lacks gets the value that config
    implied, which is the default where the field declares no other.

    Args:
      values: as `to_dict` or `nested` return them.

    Raises:
      InputError: an unknown task or field, or a value of a wrong type. `check` finds values that
        are out of range.
    """
    task = values.get("task")
    if not isinstance(task, str) or task not in TASKS:
        names = [name for name in TASKS if name]
        raise InputError(
            f"task is {task!r}, expected one of {', '.join(names)}.{did_you_mean(str(task), names)}"
        )
    config = TASKS[task]()
    given = flatten({key: value for key, value in values.items() if (task, key) != _OBSOLETE})
    del given["task"]
    for name, owner, attribute, annotation, declared in walk(config):
        if name in given:
            value = converted(name, annotation, declared, given.pop(name))
            setattr(owner, attribute, value)
        elif declared.before is not None:
            setattr(owner, attribute, declared.before)
    for name, value in given.items():
        part, _, argument = name.partition(".")
        if part != "model" or not argument:
            raise _no_field(name, config)
        config.model.arguments[argument] = with_tuples(value)
    return config


def override(config: ExperimentConfig, changes: Mapping[str, Any]) -> ExperimentConfig:
    """Returns a copy of a config with other values in some fields.

    Args:
      config: stays as it is.
      changes: values by name, such as {"verification.num_pairs": 1000}. An argument of the model
        must be in the config already.

    Raises:
      InputError: an unknown field or a value of a wrong type.
    """
    values = nested(config)
    for name, value in changes.items():
        if name not in flatten(values):
            raise _no_field(name, config)
        *sections, last = name.split(".")
        part = values
        for each in sections:
            part = part[each]
        part[last] = value
    return from_dict(values)


def with_absolute_paths(config: ExperimentConfig) -> ExperimentConfig:
    """Returns a copy of a config whose paths say the same from any folder.

    A run keeps it, so that it may be evaluated and resumed from another folder.

    Raises:
      InputError: a path that cannot be, or an empty one where the default is not empty.
    """
    config = copy.deepcopy(config)
    defaults = flatten(nested(TASKS[config.task]()))
    for name, owner, attribute, annotation, declared in walk(config):
        if not declared.path:
            continue
        value = converted(name, annotation, declared, getattr(owner, attribute))
        if "://" in value or value == defaults[name] == "":
            continue
        path = usable_path(name, value)
        if declared.path is True or os.sep in value or path.exists():
            setattr(owner, attribute, absolute_path(path))
    return config


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested dicts as one, with keys such as "optimizer.momentum"."""
    flat = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _no_field(name: str, config: ExperimentConfig) -> InputError:
    known = flatten(nested(config))
    return InputError(f"The config has no field {name!r}.{did_you_mean(name, known)}")
