import json
import subprocess
import sys

import numpy as np
import pytest

from shift_jax import create_model
from shift_jax.analysis.allocation import NAMED_ALLOCATIONS, weights_from_contributions
from shift_jax.analysis.contributions import ModuleContributions, channel_contributions
from shift_jax.errors import InputError
from shift_jax.ops import allocate_offsets, shift_offsets
from tests.models.small import random_variables

CROSS = NAMED_ALLOCATIONS["cross"]


def module(offsets, norms, kernel_size=3):
    return ModuleContributions("m", "m/conv2", kernel_size, 1, 4, 4, np.asarray(offsets), norms)


def test_strong_directions_weigh_more():
    nine = shift_offsets(9)
    strong = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9])
    weights = weights_from_contributions([module(nine, strong)])
    np.testing.assert_allclose(weights, strong / 9, atol=1e-4)
    assert weights_from_contributions([module(nine, strong)], drop=0.5) == (0,) * 4 + weights[4:]
    # Of 18 channels in two orders each direction has the mean of its two.
    twice = module(np.concatenate([nine, nine[::-1]]), np.concatenate([strong, strong[::-1]]))
    np.testing.assert_allclose(weights_from_contributions([twice]), strong / 9, atol=1e-4)


def test_each_module_counts_the_same_whatever_its_scale():
    nine, one = shift_offsets(9), np.ones(9)
    strong = np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 10])
    large = module(nine, 1000 * one)
    expected = (1 + strong / strong.mean()) / (1 + strong / strong.mean()).max()
    found = weights_from_contributions([large, module(nine, strong)])
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_directions_without_channels_get_none():
    cross = module(allocate_offsets(10, 3, CROSS), np.arange(10) + 1.0)
    weights = np.asarray(weights_from_contributions([cross]))
    assert ((weights == 0) == (np.asarray(CROSS) == 0)).all()
    # Another module has all of them, and alone says what the corners weigh: its mean.
    found = weights_from_contributions([cross, module(shift_offsets(9), np.ones(9))])
    strongest = (9.5 / 5.5 + 1) / 2  # Of the cross the last direction has the channels 9 and 10.
    assert found[0] == found[8] == pytest.approx(1 / strongest, abs=1e-4)
    assert found[7] == 1


def test_weights_of_a_network_make_another_network():
    trained = create_model("shiftresnet20", expansion=3).clone(blocks_per_group=1)
    variables = random_variables(trained, (8, 8, 3))
    contributions = channel_contributions(trained, variables, (8, 8, 3))
    ranked = sorted(weights_from_contributions(contributions))
    weights = weights_from_contributions(contributions, drop=(ranked[3] + ranked[4]) / 2)
    assert weights.count(0.0) == 4 and max(weights) == 1
    create_model("shiftresnet20", expansion=3, direction_weights=weights)


def test_named_allocations():
    for weights in NAMED_ALLOCATIONS.values():
        create_model("shiftresnet20", direction_weights=weights)
    assert NAMED_ALLOCATIONS["uniform"] is None
    used = allocate_offsets(50, 3, CROSS)
    assert np.unique(used, axis=0).tolist() == [[-1, 0], [0, -1], [0, 0], [0, 1], [1, 0]]


def test_bad_input():
    three, five = module(shift_offsets(9), np.ones(9)), module(shift_offsets(25, 5), np.ones(25), 5)
    for modules in ([], [three, five]):
        with pytest.raises(InputError, match="give modules of one kernel size"):
            weights_from_contributions(modules)
    with pytest.raises(InputError, match="drop is 1.1, expected a fraction"):
        weights_from_contributions([three], drop=1.1)
    with pytest.raises(InputError, match="weights are all 0"):
        weights_from_contributions([three._replace(norms=np.zeros(9))])


def test_command(tmp_path):
    def allocate(*arguments):
        command = [sys.executable, "-m", "shift_jax.analysis.allocation", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    output = tmp_path / "alloc.json"
    done = allocate("--weights=shiftresnet20.digits", "--drop=0.95", f"--output={output}")
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert found["name"] == "from_contributions"
    assert len(found["direction_weights"]) == 9 and max(found["direction_weights"]) == 1
    assert [float(word) for word in done.stdout.split()[:9]] == pytest.approx(
        found["direction_weights"], abs=1e-3
    )
    create_model("shiftresnet20", direction_weights=found["direction_weights"])
