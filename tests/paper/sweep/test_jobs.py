import pytest

import tests.training.one_block  # noqa: F401 (registers the network)
from shift_jax.paper.sweep.jobs import Job, count_network, estimated_minutes, jobs_left
from shift_jax.paper.sweep.networks import parse_networks
from shift_jax.paper.sweep.results_file import Result

SMALL, LARGE = parse_networks(["tiny_block-1", "tiny_block-2"])
SEEDS = {SMALL: (0, 1, 2), LARGE: (0, 1)}


def row(network, seed=0, epochs=4.0, minutes=10.0, device="d", **fields):
    return Result(
        network.model,
        network.expansion,
        network.reduction,
        network.allocation,
        seed,
        *(1000, count_network(network, "digits"), 50.0, 51.0),
        *(epochs, minutes, device, "c"),
    )._replace(**fields)


def names(jobs):
    return [str(job) for job in jobs]


def test_one_by_one_every_network_comes_with_its_first_seed_first():
    assert names(jobs_left(SEEDS, 4, [], stacked=False)) == [
        "tiny_block-1 seed 0",
        "tiny_block-2 seed 0",
        "tiny_block-1 seed 1",
        "tiny_block-2 seed 1",
        "tiny_block-1 seed 2",
    ]
    done = [row(SMALL, 0), row(LARGE, 1)]
    assert names(jobs_left(SEEDS, 4, done, stacked=False)) == [
        "tiny_block-2 seed 0",
        "tiny_block-1 seed 1",
        "tiny_block-1 seed 2",
    ]


def test_stacked_a_network_comes_with_all_seeds_that_have_no_row():
    assert names(jobs_left(SEEDS, 4, [], stacked=True)) == [
        "tiny_block-1 seeds 0, 1, 2",
        "tiny_block-2 seeds 0, 1",
    ]
    done = [row(SMALL, 1), row(LARGE, 0), row(LARGE, 1)]
    assert names(jobs_left(SEEDS, 4, done, stacked=True)) == ["tiny_block-1 seeds 0, 2"]


@pytest.mark.parametrize(
    "other",
    [
        *({"epochs": 3.0}, {"seed": 7}, {"expansion": 3.0}, {"allocation": "cross"}),
        *({"model": "x"}, {"recipe": "short"}, {"shift": "active"}),
    ],
)
def test_a_row_of_another_run_is_none(other):
    job = Job(SMALL, (0,), 4)
    assert job.is_done([row(SMALL)])
    assert not job.is_done([row(SMALL)._replace(**other)])


def test_estimates_come_from_the_same_network_or_the_most_similar_one():
    job = Job(SMALL, (0,), 8)

    def estimate(rows, job=job):
        return estimated_minutes(job, "digits", rows, "d")

    assert estimate([]) is None
    assert estimate([row(SMALL, device="another")]) is None
    assert estimate([row(SMALL, recipe="short")]) is None
    assert estimate([row(SMALL), row(SMALL, minutes=12.0), row(LARGE)]) == pytest.approx(22)
    (larger,) = parse_networks(["tiny_block-4"])
    ratio = count_network(SMALL, "digits") / count_network(LARGE, "digits")
    assert estimate([row(larger), row(LARGE)]) == pytest.approx(20 * ratio)
    # A row's minutes are its own share of those of a stack.
    assert estimate([row(SMALL)], Job(SMALL, (0, 1, 2), 8)) == pytest.approx(60)


def test_macs_are_those_of_the_datasets_images_and_classes():
    (network,) = parse_networks(["shiftresnet20-1"])
    assert count_network(network, "cifar100") == 5_948_032 + 64 * 90
    assert count_network(SMALL, "digits") < count_network(LARGE, "digits") < 100_000
