import pytest

from shift_jax.paper.tables.parts import counted, parameters_10_100
from shift_jax.paper.tables.published import Published, families, network_name

CELLS = {name: cell for family in families() for name, cell in family.networks.items()}


# CIFAR-10, CIFAR-100 and the authors' re-run on CIFAR-100, by E = 1, 3, 6, 9 as far as there are so
# many; typed from the paper and the authors' repository, and not read from our tables.
ACCURACIES = {
    "shiftresnet20": [
        [86.66, 90.08, 90.59, 91.69],
        [55.62, 62.32, 68.64, 69.82],
        [55.05, 65.83, 69.73, 70.77],
    ],
    "shiftresnet56": [
        [89.71, 92.11, 92.69, 92.74],
        [65.21, 69.77, 72.13, 73.64],
        [63.20, 69.77, 72.33, 73.43],
    ],
    "shiftresnet110": [
        [90.34, 91.98, 93.17, 92.79],
        [67.84, 71.83, 72.56, 74.10],
        [68.01, 72.10, 73.17, 73.71],
    ],
    "resnet20-module": [[85.54, 88.33, 90.09], [52.40, 60.61, 64.27], None],
    "resnet56-module": [[87.46, 89.40, 89.89], [56.78, 62.53, 61.99], None],
    "resnet110-module": [[76.82, 74.30, 79.02], [39.90, 40.52, 40.23], [65.79, 70.22, 72.21]],
    "resnet20-net": [None, [49.58, 58.16, 63.22], None],
    "resnet56-net": [None, [56.62, 64.49, 67.45], None],
    "resnet110-net": [None, [60.44, 66.61, 68.87], None],
    "depthwiseresnet20": [None, None, [61.32, 64.51, 65.38, 65.59]],
    "depthwiseresnet56": [None, None, [65.30, 66.49, 67.46, 67.75]],
    "depthwiseresnet110": [None, None, [65.80, 67.22, 68.11, 68.39]],
}
UNREDUCED = {
    "resnet20": (91.35, 66.25, None),
    "resnet56": (92.01, 69.27, None),
    "resnet110": (92.46, 72.11, None),
}


def test_accuracies():
    expected = dict(UNREDUCED)
    for network, columns in ACCURACIES.items():
        number = max(len(column) for column in columns if column)
        for index, expansion in enumerate((1, 3, 6, 9)[:number]):
            row = tuple(column[index] if column else None for column in columns)
            expected[f"{network}-{expansion}"] = row
    assert {name: cell[:3] for name, cell in CELLS.items()} == expected


def test_every_cell_of_table_5_once():
    assert [(family.title.partition(" (")[0], len(family.networks)) for family in families()] == [
        ("ShiftResNet", 12),
        ("ResNet", 3),
        ("ResNet, reduced module-wise", 9),
        ("ResNet, reduced net-wise", 9),
        ("Depthwise ResNet", 12),
    ]
    assert len(CELLS) == 45


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("shiftresnet20", 3.0), "shiftresnet20-3"),
        (("resnet20", None), "resnet20"),
        (("resnet56", 1.0, "module"), "resnet56-module-1"),
        (("shiftresnet20", 1.5, "", "cross"), "shiftresnet20-1.5@cross"),
    ],
)
def test_names(arguments, name):
    assert network_name(*arguments) == name


def counts(name):
    model, *rest = name.split("-")
    arguments = {}
    if rest:
        arguments["expansion"] = int(rest[-1])
    if len(rest) == 2:
        arguments["reduction"] = rest[0]
    if rest[:1] == ["module"]:  # What the paper trained.
        model += "_projection"
    network = counted(model, **arguments)
    classifier = network.part("classifier")
    params = parameters_10_100(model, **arguments)[1]
    return params, network.macs + 9 * classifier.macs


def check_counts(names):
    assert {name: CELLS[name][3:] for name in names} == {name: counts(name) for name in names}


def test_counts_of_a_small_one():
    check_counts(["resnet20-module-1"])


@pytest.mark.slow
def test_counts():
    check_counts([name for name, cell in CELLS.items() if cell.params])


def test_nothing_is_published_by_default():
    assert set(Published()) == {None}
