import importlib
import math

import pytest

from configs import cifar, common
from shift_jax.errors import InputError
from tests.conftest import REPOSITORY

EXPERIMENTS = sorted(
    path.stem for path in (REPOSITORY / "configs").glob("*.py") if path.stem != "common"
)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_config_says_what_it_is_and_how_to_run_it(name):
    module = importlib.import_module(f"configs.{name}")
    for part in ("Reproduces:", "Expected", "Cost:", f"python train.py --config=configs/{name}.py"):
        assert part in module.__doc__, part
    config = module.get_config()
    assert set(config) == set(common.classification()), "fields are declared in common.py"


def test_the_authors_recipe():
    config = cifar.get_config("cifar100,shiftresnet56,expansion=6")
    assert (config.model.name, config.model.expansion) == ("shiftresnet56", 6)
    steps_per_epoch = math.ceil(50_000 / config.batch_size)
    assert steps_per_epoch == 391 and not config.data.drop_remainder
    assert config.epochs == 82 + 41 + 41
    assert config.schedule.boundaries_epochs == (82, 82 + 41)
    assert config.model.initialization == "pytorch"
    optimizer = config.optimizer
    assert (optimizer.momentum, optimizer.nesterov, optimizer.weight_decay) == (0.9, False, 5e-4)
    assert optimizer.weight_decay_coupled and optimizer.weight_decay_on == "all"
    assert optimizer.restart_momentum_each_epoch
    assert (config.data.pad, config.data.flip) == (4, True)


def test_options_are_read_as_python_values():
    words, pairs = common.parse_options("cifar10, resnet20,reduction=net,factor=2.5,x=0")
    assert words == ["cifar10", "resnet20"]
    assert pairs == {"reduction": "net", "factor": 2.5, "x": 0}


@pytest.mark.parametrize("options", ["", "cifar100", "mnist,resnet20", "cifar10,resnet20,fast"])
def test_options_without_dataset_and_model(options):
    with pytest.raises(InputError, match=r"expected cifar10 or cifar100, then a model"):
        cifar.get_config(options)
