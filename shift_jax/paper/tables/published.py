"""What was published on the networks of Table 5: the paper's accuracies and the authors' re-run.

The networks have the names of `shift-jax sweep`: shiftresnet20-3, resnet20,
resnet20-module-1, resnet20-net-3, depthwiseresnet20-3.
"""

from typing import NamedTuple

from shift_jax.paper.tables.printed import TABLE_5

DEPTHS = (20, 56, 110)

# The authors' later re-run, from their repository: the best test epoch on CIFAR-100, in percent,
# for E = 1, 3, 6, 9. It covers one kind of reduced ResNet only, without the projection shortcuts
# that their first code gave every block.
_RERUN = {
    "shiftresnet20": (55.05, 65.83, 69.73, 70.77),
    "shiftresnet56": (63.20, 69.77, 72.33, 73.43),
    "shiftresnet110": (68.01, 72.10, 73.17, 73.71),
    "resnet110-module": (65.79, 70.22, 72.21),
    "depthwiseresnet20": (61.32, 64.51, 65.38, 65.59),
    "depthwiseresnet56": (65.30, 66.49, 67.46, 67.75),
    "depthwiseresnet110": (65.80, 67.22, 68.11, 68.39),
}

# Parameters and true MACs with 100 classes for E = 1, 3, 6, 9 or without E; a test compares them
# with the counter, which would take a minute here. The module-wise networks are those of the
# authors' first code, with a projection shortcut in every block. The paper does not print the
# net-wise widths; these come nearest to the ShiftResNets' parameters.
_COUNTS = {
    "shiftresnet20": (
        (40756, 5953792),
        (101492, 16439552),
        (192596, 32168192),
        (283700, 47896832),
    ),
    "shiftresnet56": (
        (107956, 15390976),
        (300404, 44751104),
        (589076, 88791296),
        (877748, 132831488),
    ),
    "shiftresnet110": (
        (208756, 29546752),
        (598772, 87218432),
        (1183796, 173725952),
        (1768820, 260233472),
    ),
    "resnet20": ((278324, 40818944),),
    "resnet56": ((861620, 125753600),),
    "resnet110": ((1736564, 253155584),),
    "resnet20-module": ((41796, 5255424), (99972, 13586688), (189336, 27613440)),
    "resnet56-module": ((109938, 15079680), (304644, 41750784), (588000, 85416192)),
    "resnet110-module": ((216912, 30120192), (611652, 83996928), (1185996, 172120320)),
    "resnet20-net": ((34512, 4606360), (99596, 13948888), (190150, 27334388)),
    "resnet56-net": ((103464, 14061976), (304868, 42868696), (586990, 84130292)),
    "resnet110-net": ((206892, 28245400), (612776, 86248408), (1182250, 169324148)),
}


class Published(NamedTuple):
    """One network; None where nothing was published.

    Attributes:
      cifar10: the paper's top-1 on CIFAR-10, in percent.
      cifar100: the paper's top-1 on CIFAR-100, in percent.
      rerun: top-1 of the authors' re-run on CIFAR-100, in percent.
      params: parameters of the network that the paper trained, with 100 classes.
      macs: its true multiply-accumulates for one image of 32×32.
    """

    cifar10: float | None = None
    cifar100: float | None = None
    rerun: float | None = None
    params: int | None = None
    macs: int | None = None


class Family(NamedTuple):
    """The networks of one column of Table 5, by depth, then by E.

    Attributes:
      title: the column's name.
      networks: what was published, by the network's name.
    """

    title: str
    networks: dict[str, Published]


def network_name(
    model: str, expansion: float | None = None, reduction: str = "", allocation: str = ""
) -> str:
    """Returns the name of a network in a sweep, such as "resnet20-module-1"."""
    parts = [model, reduction, "" if expansion is None else f"{expansion:g}"]
    return "-".join(filter(None, parts)) + (f"@{allocation}" if allocation else "")


def families() -> tuple[Family, ...]:
    """Returns the columns of Table 5, and the depthwise ResNets, which only the re-run has."""
    shift, full, module_wise, net_wise, depthwise = {}, {}, {}, {}, {}
    for row in TABLE_5:
        resnet = f"resnet{row.depth}"
        cifar10, cifar100 = map(_percent, row.module_wise.split(" / "))
        _add(shift, f"shift{resnet}", row.expansion, *map(_percent, row.shift.split(" / ")))
        _add(depthwise, f"depthwise{resnet}", row.expansion)
        if row.expansion == 9:  # These rows of the table hold the ResNets that are not reduced.
            _add(full, resnet, None, cifar10, cifar100)
            continue
        _add(module_wise, f"{resnet}-module", row.expansion, cifar10, cifar100)
        _add(net_wise, f"{resnet}-net", row.expansion, None, _percent(row.net_wise))
    return (
        Family("ShiftResNet", shift),
        Family("ResNet", full),
        Family("ResNet, reduced module-wise", module_wise),
        Family("ResNet, reduced net-wise", net_wise),
        Family("Depthwise ResNet (not in the paper)", depthwise),
    )


def _add(networks: dict[str, Published], model: str, expansion: int | None, *paper: float | None):
    index = 0 if expansion is None else (1, 3, 6, 9).index(expansion)
    rerun = _RERUN[model][index] if model in _RERUN else None
    cifar10, cifar100 = paper or (None, None)
    params, macs = _COUNTS[model][index] if model in _COUNTS else (None, None)
    networks[network_name(model, expansion)] = Published(cifar10, cifar100, rerun, params, macs)


def _percent(printed: str) -> float:
    return float(printed.removesuffix("%"))
