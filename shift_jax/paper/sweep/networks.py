"""The networks of a sweep: those of Table 5 by importance, and the recipe of each."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from shift_jax.config import AUTHORS_EPOCHS, ClassificationConfig, authors_cifar
from shift_jax.errors import InputError, check_choice, did_you_mean
from shift_jax.models import create_model, list_models, model_record
from shift_jax.paper.sweep.allocations import NAMED_ALLOCATIONS, read_allocation
from shift_jax.paper.tables.published import network_name


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


def recipe(
    dataset: str, network: NetworkSpec, epochs: int = AUTHORS_EPOCHS
) -> ClassificationConfig:
    """Returns the authors' recipe for one network.

    Args:
      dataset: "cifar10" or "cifar100"; "digits" is there to try sweeps with.
      network: the network.
      epochs: length of the schedule, whose proportions stay.
    """
    config = authors_cifar(dataset, network.model, network.arguments, epochs)
    if dataset == "digits":
        config.data.pad, config.data.flip = 1, False
        config.data.mean, config.data.std = (0.5,), (0.5,)
    return config


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
            f"{match['model']} is not a classifier: expected a network such as shiftresnet20-3."
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
