import pytest

from shift_jax.analysis.published import Published, cell_name, families
from shift_jax.analysis.table_parts import counted, parameters_10_100

CELLS = {name: cell for family in families() for name, cell in family.cells.items()}


@pytest.mark.parametrize(
    ("name", "accuracies"),
    [
        ("shiftresnet20-1", (86.66, 55.62, 55.05)),
        ("shiftresnet56-3", (92.11, 69.77, 69.77)),
        ("shiftresnet110-9", (92.79, 74.10, 73.71)),
        ("resnet20", (91.35, 66.25, None)),
        ("resnet110", (92.46, 72.11, None)),
        ("resnet20-module-3", (88.33, 60.61, None)),
        ("resnet110-module-1", (76.82, 39.90, 65.79)),
        ("resnet110-module-6", (79.02, 40.23, 72.21)),
        ("resnet110-net-1", (None, 60.44, None)),
        ("resnet56-net-6", (None, 67.45, None)),
        ("depthwiseresnet56-6", (None, None, 67.46)),
    ],
)
def test_accuracies(name, accuracies):
    assert CELLS[name][:3] == accuracies


def test_every_cell_of_table_5_once():
    assert [(family.title.partition(" (")[0], len(family.cells)) for family in families()] == [
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
    assert cell_name(*arguments) == name


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
