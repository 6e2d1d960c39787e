import json
import subprocess
import sys

import numpy as np
import pytest

from shift_jax import create_model
from shift_jax.errors import InputError
from shift_jax.ops import allocate_offsets, shift_offsets
from shift_jax.paper.figures.allocation import weights_from_contributions
from shift_jax.paper.figures.contributions import ModuleContributions, channel_contributions
from shift_jax.paper.sweep.allocations import NAMED_ALLOCATIONS, read_allocation
from tests.models.small import random_variables

CROSS = NAMED_ALLOCATIONS["cross"]


def module(offsets, norms, kernel_size=3):
    return ModuleContributions("m", "m/conv2", kernel_size, 1, 4, 4, np.asarray(offsets), norms)


def test_strong_directions_weigh_more():
    nine = shift_offsets(9)
    strong = np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9])
    weights = weights_from_contributions([module(nine, strong)], keep=9)
    np.testing.assert_allclose(weights, strong / 9, atol=1e-4)
    assert weights_from_contributions([module(nine, strong)]) == (0,) * 4 + weights[4:]
    assert weights_from_contributions([module(nine, strong)], keep=1) == (0,) * 8 + (1,)
    # Of equally strong ones the first are kept.
    assert weights_from_contributions([module(nine, np.ones(9))], keep=4) == (1,) * 4 + (0,) * 5
    # Of 18 channels in two orders each direction has the mean of its two.
    twice = module(np.concatenate([nine, nine[::-1]]), np.concatenate([strong, strong[::-1]]))
    np.testing.assert_allclose(weights_from_contributions([twice], 9), strong / 9, atol=1e-4)


def test_each_module_counts_the_same_whatever_its_scale():
    nine, one = shift_offsets(9), np.ones(9)
    strong = np.array([1.0, 1, 1, 1, 1, 1, 1, 1, 10])
    large = module(nine, 1000 * one)
    expected = (1 + strong / strong.mean()) / (1 + strong / strong.mean()).max()
    found = weights_from_contributions([large, module(nine, strong)], keep=9)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_directions_without_channels_get_none():
    cross = module(allocate_offsets(10, 3, CROSS), np.arange(10) + 1.0)
    weights = np.asarray(weights_from_contributions([cross], keep=9))
    assert ((weights == 0) == (np.asarray(CROSS) == 0)).all()
    # Another module has all of them, and alone says what the corners weigh: its mean.
    found = weights_from_contributions([cross, module(shift_offsets(9), np.ones(9))], 9)
    strongest = (9.5 / 5.5 + 1) / 2  # Of the cross the last direction has the channels 9 and 10.
    assert found[0] == found[8] == pytest.approx(1 / strongest, abs=1e-4)
    assert found[7] == 1


def test_weights_of_a_network_make_another_network():
    trained = create_model("shiftresnet20", expansion=3).clone(blocks_per_group=1)
    variables = random_variables(trained, (8, 8, 3))
    contributions = channel_contributions(trained, variables, (8, 8, 3))
    weights = weights_from_contributions(contributions)
    assert weights.count(0.0) == 4 and max(weights) == 1
    made = create_model("shiftresnet20", expansion=3, direction_weights=weights)
    modules = channel_contributions(made.clone(blocks_per_group=1), variables, (8, 8, 3))
    # Trained directions contribute much alike: what is kept has to differ from a ninth.
    for each in modules:
        counts = [len(channels) for channels in each.shift_groups]
        assert [count > 0 for count in counts] == [weight > 0 for weight in weights]
        assert max(counts) >= len(each.norms) / 5


def test_named_allocations():
    for weights in NAMED_ALLOCATIONS.values():
        create_model("shiftresnet20", direction_weights=weights)
    assert NAMED_ALLOCATIONS["uniform"] is None
    even = allocate_offsets(16, 3, NAMED_ALLOCATIONS["even"])
    # Two of the first seven directions and one of the last two, instead of eight of the center.
    assert (even == 0).all(axis=1).sum() == 2
    used = allocate_offsets(50, 3, CROSS)
    assert np.unique(used, axis=0).tolist() == [[-1, 0], [0, -1], [0, 0], [0, 1], [1, 0]]


def test_bad_input():
    three, five = module(shift_offsets(9), np.ones(9)), module(shift_offsets(25, 5), np.ones(25), 5)
    for modules in ([], [three, five]):
        with pytest.raises(InputError, match="give modules of one kernel size"):
            weights_from_contributions(modules)
    for keep in (0, 10):
        with pytest.raises(InputError, match=f"keep is {keep}, expected .*, 1 to 9"):
            weights_from_contributions([three], keep=keep)
    with pytest.raises(InputError, match="weights are all 0"):
        weights_from_contributions([three._replace(norms=np.zeros(9))])


def test_command(tmp_path):
    def allocate(*arguments):
        command = [sys.executable, "-m", "shift_jax.commands.allocation", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    output = tmp_path / "results" / "from_contributions.json"
    done = allocate("--weights=shiftresnet20.digits", "--keep=4", f"--output={output}")
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    assert found["name"] == "from_contributions"
    weights = found["direction_weights"]
    assert (len(weights), weights.count(0), max(weights)) == (9, 5, 1)
    lines = [[float(word) for word in line.split()] for line in done.stdout.splitlines()[1:4]]
    for index, scale in enumerate((None, 16, 48, 192)):
        shown = [number for line in lines for number in line[3 * index : 3 * index + 3]]
        if scale is None:
            assert shown == pytest.approx(weights, abs=1e-3)
        else:
            assert sum(shown) == scale
            assert shown == pytest.approx(np.multiply(weights, scale / sum(weights)), abs=1)
    assert "of 192 channels" in done.stdout.splitlines()[0]
    create_model("shiftresnet20", direction_weights=weights)
    assert read_allocation(output) == ("from_contributions", tuple(weights))

    done = allocate("--weights=shiftresnet20.digits", f"--output={tmp_path / 'alloc.txt'}")
    assert done.returncode == 2
    assert "alloc.txt does not end in .json" in done.stderr
    done = allocate("--weights=shiftresnet20.digits", f"--output={output}", "--name=cross")
    assert done.returncode == 2 and "'cross', the name of a built-in one" in done.stderr
