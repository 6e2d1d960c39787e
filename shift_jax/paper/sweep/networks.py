"""The networks of a sweep: those of Table 5 by importance, and the recipe of each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shift_jax.errors import InputError, check_choice, did_you_mean
from shift_jax.models import create_model, list_models, model_record
from shift_jax.paper.sweep.allocations import NAMED_ALLOCATIONS, read_allocation
from shift_jax.paper.tables.published import network_name

EPOCHS = 164
"""Of the authors' recipe."""

# The learning rate of the authors' recipe falls after these parts of the epochs.
_BOUNDARIES = (1 / 2, 3 / 4)


class NetworkSpec(NamedTuple):
    """A network to train.

    Attributes:
      model: one of `shift_jax.list_models()`.
      expansion: E, or None.
      reduction: "", "module" or "net".
      allocation: the name of a shift allocation, "" for the uniform one.
      direction_weights: the weights of the allocation, None for the uniform one.
    """

    model: str
    expansion: float | None = None
    reduction: str = ""
    allocation: str = ""
    direction_weights: tuple[float, ...] | None = None

    @property
    def name(self) -> str:
        """The name on the command line, such as "resnet20-module-1" or "shiftresnet20-3@cross"."""
        return network_name(self.model, self.expansion, self.reduction, self.allocation)

    @property
    def arguments(self) -> dict[str, Any]:
        """Arguments of `create_model`."""
        arguments: dict[str, Any] = {}
        if self.reduction:
            arguments["reduction"] = self.reduction
        if self.expansion is not None:
            arguments["expansion"] = self.expansion
        if self.direction_weights is not None:
            arguments["direction_weights"] = self.direction_weights
        return arguments


def table_networks(table: int) -> list[NetworkSpec]:
    """Returns the networks of the paper's Table 1, 2, 4 or 5, the most important first.

    Figures 4 and 5 show those of Table 5.

    Raises:
      InputError: another table.
    """
    check_choice("table", table, _TABLES)
    return parse_networks(_TABLES[table])


def parse_networks(names: Iterable[str]) -> list[NetworkSpec]:
    """Reads names of networks: "shiftresnet20-3", "resnet20-net-3", "shiftresnet20-3@cross".

    What follows the "@" is one of `NAMED_ALLOCATIONS`, or a JSON file with a "name" and
    "direction_weights".

    Raises:
      InputError: an unknown network, or a name that occurs twice.
    """
    networks = [_parse(name) for name in names]
    for index, network in enumerate(networks):
        # Rows and folders are found by name.
        if network.name in {other.name for other in networks[:index]}:
            raise InputError(
                f"{network.name} is named twice: name each network and allocation once."
            )
    return networks


def default_seeds(network: NetworkSpec) -> tuple[int, ...]:
    """Returns three seeds for the networks of depth 20, one for the others."""
    return (0, 1, 2) if re.search(r"(?<!\d)20(?!\d)", network.model) else (0,)


class Config(dict):
    """A stand-in for `ml_collections.ConfigDict`, which is not everywhere; for reading only."""

    def __init__(self, fields: dict[str, Any]):
        super().__init__(
            {
                key: Config(value) if isinstance(value, dict) else value
                for key, value in fields.items()
            }
        )

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(f"The config has no field {name!r}.") from error

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as plain dicts."""
        return {
            key: value.to_dict() if isinstance(value, Config) else value
            for key, value in self.items()
        }

    def __deepcopy__(self, memo: dict) -> Config:
        return Config(self.to_dict())


def recipe(dataset: str, network: NetworkSpec, epochs: int = EPOCHS) -> Config:
    """Returns the authors' recipe of `configs/cifar.py` for one network.

    Args:
      dataset: "cifar10" or "cifar100"; "digits" is there to try sweeps with.
      network: the network.
      epochs: 164 in the recipe, whose learning rate falls at 82 and 123; in a shorter schedule it
        falls after the same parts of the whole.
    """
    digits = dataset == "digits"
    return Config(
        {
            "task": "classification",
            "seed": 0,
            "model": {
                "name": network.model,
                "dtype": "float32",
                "initialization": "pytorch",
                **network.arguments,
            },
            "data": {
                "name": dataset,
                "data_dir": "",
                "train_split": "train",
                "eval_split": "test",
                "image_size": 0,
                "eval_crop": 1.0,
                "augmentation": "pad_crop_flip",
                "flip": not digits,
                "pad": 1 if digits else 4,
                "crop_scale": (0.08, 1.0),
                "crop_ratio": (3 / 4, 4 / 3),
                "color_jitter": 0.0,
                "randaugment_num_ops": 0,
                "randaugment_magnitude": 9,
                # CIFAR-10's for CIFAR-100 too, as the authors had them.
                "mean": (0.5,) if digits else (0.4914, 0.4822, 0.4465),
                "std": (0.5,) if digits else (0.2023, 0.1994, 0.2010),
                "drop_remainder": False,
                "max_unreadable_fraction": 0.001,
                "num_workers": 0,
            },
            "batch_size": 128,
            "accumulation_steps": 1,
            "eval_batch_size": 512,
            "epochs": float(epochs),
            "eval_every_epochs": 1.0,
            "log_every_steps": 50,
            "checkpoint_every_steps": 0,
            "ema_decay": 0.0,
            "fsdp": 1,
            "label_smoothing": 0.0,
            "mixup_alpha": 0.0,
            "schedule": {
                "name": "step",
                "learning_rate": 0.1,
                "boundaries_epochs": tuple(_whole(part * epochs) for part in _BOUNDARIES),
                "factor": 0.1,
                "warmup_epochs": 0.0,
            },
            "optimizer": {
                "name": "sgd",
                "momentum": 0.9,
                "nesterov": False,
                "weight_decay": 5e-4,
                "weight_decay_coupled": True,
                "weight_decay_on": "all",
                "clip_norm": 0.0,
                "restart_momentum_each_epoch": True,
            },
            "keep_latest": 2,
            "keep_best": 1,
            "tensorboard": True,
        }
    )


def _whole(number: float) -> float:
    return int(number) if number == int(number) else number


_NAME = re.compile(
    r"(?P<model>\w+)(?:-(?P<reduction>module|net))?(?:-(?P<expansion>\d+(?:\.\d+)?))?"
    r"(?:@(?P<allocation>.+))?"
)


def _parse(name: str) -> NetworkSpec:
    match = _NAME.fullmatch(name)
    if not match or match["model"] not in list_models():
        known = [network for networks in _TABLES.values() for network in networks]
        raise InputError(
            f"There is no network {name!r} to train, expected one such as shiftresnet20-3, "
            f"resnet20-module-1, resnet20-net-3 or shiftresnet20-3@cross."
            f"{did_you_mean(name, dict.fromkeys(known))}"
        )
    if not model_record(match["model"]).num_classes:
        raise InputError(
            f"{match['model']} is no classifier: expected a network such as shiftresnet20-3."
        )
    allocation, weights = "", None
    if match["allocation"]:
        allocation, weights = _allocation(match["allocation"])
    network = NetworkSpec(
        match["model"],
        float(match["expansion"]) if match["expansion"] else _default_expansion(match["model"]),
        match["reduction"] or "",
        allocation,
        weights,
    )
    create_model(network.model, **network.arguments)  # Wrong arguments fail before the sweep.
    return network


def _default_expansion(model: str) -> float | None:
    """The model's default E, None if it has none."""
    argument = inspect.signature(model_record(model).build).parameters.get("expansion")
    default = argument.default if argument else None
    # So that shiftresnet20 is not trained once more as shiftresnet20-1.
    return float(default) if isinstance(default, int | float) else None


def _allocation(text: str) -> tuple[str, tuple[float, ...] | None]:
    """The name and weights of the text after an "@"; "" and None for the uniform allocation."""
    if text.endswith(".json"):
        return read_allocation(Path(text))
    if text not in NAMED_ALLOCATIONS:
        raise InputError(
            f"There is no allocation {text!r}, expected {', '.join(NAMED_ALLOCATIONS)} or a file "
            f"such as alloc.json.{did_you_mean(text, NAMED_ALLOCATIONS)}"
        )
    weights = NAMED_ALLOCATIONS[text]
    return ("", None) if weights is None else (text, tuple(map(float, weights)))


def _reduced(depths: Sequence[int]) -> list[str]:
    return [
        f"resnet{depth}-{reduction}-{expansion}"
        for depth in depths
        for reduction in ("net", "module")
        for expansion in (1, 3, 6)
    ]


def _full(depth: int) -> list[str]:
    return [*(f"shiftresnet{depth}-{expansion}" for expansion in (1, 3, 6, 9)), f"resnet{depth}"]


# The most important first.
_TABLES = {
    5: [*_full(20), *_full(56), *_reduced([20]), *_full(110), *_reduced([56, 110])],
    4: [name for n in (20, 56, 110) for name in (f"shiftresnet{n}-6", f"resnet{n}")],
    1: ["shiftresnet56-3", "resnet56"],
    # Its ResNet110-1 has the accuracy of one reduced network and the parameters of the other.
    2: ["shiftresnet110-1", "resnet110-net-1", "resnet110-module-1"],
}
