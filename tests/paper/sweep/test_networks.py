import json

import pytest

from shift_jax.config import cifar, to_dict
from shift_jax.errors import InputError
from shift_jax.paper.sweep.networks import (
    NetworkSpec,
    default_seeds,
    parse_networks,
    recipe,
    table_networks,
)
from shift_jax.paper.tables.published import families


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("shiftresnet20-3", "shiftresnet20,expansion=3"),
        ("resnet56", "resnet56"),
        ("resnet20-net-6", "resnet20,reduction=net,expansion=6"),
        ("resnet110_projection-module-1", "resnet110_projection,reduction=module,expansion=1"),
        ("depthwiseresnet20-0.5", "depthwiseresnet20,expansion=0.5"),
    ],
)
def test_the_recipe_is_that_of_configs_cifar(name, options):
    (network,) = parse_networks([name])
    assert network.name == name
    for dataset in ("cifar10", "cifar100"):
        assert recipe(dataset, network) == cifar(f"{dataset},{options}")


def test_short_schedules_keep_the_proportions():
    (network,) = parse_networks(["resnet20"])
    assert recipe("cifar100", network, 164).schedule.boundaries_epochs == (82, 123)
    short = recipe("cifar100", network, 6)
    assert short.epochs == 6 and short.schedule.boundaries_epochs == (3, 4.5)


def test_table_5_has_every_published_cell_the_most_important_first():
    names = [network.name for network in table_networks(5)]
    *in_paper, _depthwise = families()
    assert sorted(names) == sorted(name for family in in_paper for name in family.networks)
    assert names[:5] == [*(f"shiftresnet20-{e}" for e in (1, 3, 6, 9)), "resnet20"]
    assert names[5:10] == [*(f"shiftresnet56-{e}" for e in (1, 3, 6, 9)), "resnet56"]
    assert set(names[10:16]) == {f"resnet20-{r}-{e}" for r in ("net", "module") for e in (1, 3, 6)}
    assert names[16:21] == [*(f"shiftresnet110-{e}" for e in (1, 3, 6, 9)), "resnet110"]


@pytest.mark.parametrize("table", [1, 2, 4])
def test_the_other_tables_are_parts_of_table_5(table):
    networks = table_networks(table)
    assert networks and set(networks) < set(table_networks(5))


def test_depth_20_has_three_seeds():
    names = ("shiftresnet20-9", "resnet20-net-1", "shiftresnet110-1", "resnet56")
    assert [len(default_seeds(network)) for network in parse_networks(names)] == [3, 3, 1, 1]


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["shiftresnet21-3"], "no network 'shiftresnet21-3' to train.* mean 'shiftresnet20-3'"),
        (["shiftresnet20-x"], "no network 'shiftresnet20-x'"),
        ([""], "no network ''"),
        (["resnet20-9"], "expansion and factor set the size of a reduced ResNet"),
        (["resnet20-net-4"], "no reduced ResNet for expansion 4"),
        (["shiftresnet20-net-3"], "has no argument 'reduction'"),
        (["resnet20", "shiftresnet20-3", "resnet20"], "resnet20 is named twice"),
        (["shiftresnet20", "shiftresnet20-1"], "shiftresnet20-1 is named twice"),
        (["style_transformer"], "style_transformer is not a classifier"),
        (["shiftfacenet"], "shiftfacenet is not a classifier"),
        (["shiftresnet20-3@none.json"], "none.json cannot be read"),
        (["shiftresnet20-3@corss"], "no allocation 'corss', .*Did you mean 'cross'"),
    ],
)
def test_wrong_names(names, sentence):
    with pytest.raises(InputError, match=sentence):
        parse_networks(names)


def test_another_table_is_refused():
    with pytest.raises(InputError, match="table is 3, expected 5, 4, 1 or 2"):
        table_networks(3)


def test_allocations_by_name_and_by_file(tmp_path):
    path = tmp_path / "alloc.json"
    weights = [0, 1, 0, 2, 1.5, 2, 0, 1, 0]
    path.write_text(json.dumps({"name": "mine", "direction_weights": weights}))
    cross, uniform, mine = parse_networks(
        ["shiftresnet20-3@cross", "shiftresnet20-3@uniform", f"shiftresnet20-3@{path}"]
    )
    assert cross.name == "shiftresnet20-3@cross" and mine.name == "shiftresnet20-3@mine"
    assert uniform == NetworkSpec("shiftresnet20", 3.0)
    assert mine.direction_weights == tuple(weights)
    assert to_dict(recipe("cifar100", mine))["model"]["direction_weights"] == weights
    assert "direction_weights" not in recipe("cifar100", uniform).model.arguments
    assert all(type(weight) is float for weight in cross.direction_weights)


def test_two_allocations_of_one_name_are_refused(tmp_path):
    names = []
    for weight in (1, 2):
        path = tmp_path / f"{weight}.json"
        weights = [weight, 1, 0, 2, 1.5, 2, 0, 1, 0]
        path.write_text(json.dumps({"name": "mine", "direction_weights": weights}))
        names.append(f"shiftresnet20-3@{path}")
    with pytest.raises(InputError, match="shiftresnet20-3@mine is named twice: .* allocation once"):
        parse_networks(names)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not an allocation: expected JSON with a name and direction_weights"),
        ("[1]", "is not an allocation"),
        ('{"name": "x"}', "is not an allocation"),
        ('{"name": "x", "direction_weights": 3}', "is not an allocation"),
        ('{"name": "x", "direction_weights": "010111010"}', "is not an allocation"),
        ('{"name": "a/b", "direction_weights": [1]}', "name is 'a/b', expected letters"),
        ('{"name": "cross", "direction_weights": [1]}', "name is 'cross', the name of a built-in"),
        (
            '{"name": "uniform", "direction_weights": [1]}',
            "name is 'uniform', the name of a built-in",
        ),
    ],
)
def test_bad_allocation_files(tmp_path, content, sentence):
    path = tmp_path / "alloc.json"
    path.write_text(content)
    with pytest.raises(InputError, match=sentence):
        parse_networks([f"shiftresnet20-3@{path}"])
