"""The choice of identities to train on and to hold out, and lists of their names."""

import os
import re

import pytest

from shift_jax.data import (
    read_names,
    split_identities,
)
from shift_jax.errors import InputError
from tests.data.sources.assertions import assert_input_error

# The choice of identities


NAMES = [f"m.{i:04x}" for i in range(1000)]


def test_a_choice_is_disjoint_and_of_the_numbers_asked_for():
    train, held_out = split_identities(NAMES, num_train=300, held_out=100, seed=0)
    assert len(set(train)) == 300 and len(set(held_out)) == 100
    assert not set(train) & set(held_out) and set(train) | set(held_out) < set(NAMES)
    assert train == sorted(train) and held_out == sorted(held_out)
    not_utf8 = os.fsdecode(b"\xff")
    assert split_identities(["a", not_utf8], num_train=1, held_out=["a"], seed=0)[0] == [not_utf8]
    everything = split_identities(NAMES, num_train=0, held_out=100, seed=0)
    assert everything == (sorted(set(NAMES) - set(held_out)), held_out)
    assert split_identities(NAMES, num_train=0, held_out=0, seed=0) == (NAMES, [])
    named = split_identities(NAMES, num_train=300, held_out=train[:50], seed=0)
    assert named[1] == train[:50] and len(named[0]) == 300 and not set(named[0]) & set(train[:50])


def test_a_choice_depends_on_the_names_and_the_seed_only():
    kwargs = {"num_train": 300, "held_out": 100}
    chosen = split_identities(NAMES, seed=0, **kwargs)
    assert split_identities(NAMES[::-1] + NAMES[:10], seed=0, **kwargs) == chosen
    other = split_identities(NAMES, seed=1, **kwargs)
    # Drawn anew, about 90 of 300 and 10 of 100 are the same.
    assert 60 < len(set(chosen[0]) & set(other[0])) < 120
    assert len(set(chosen[1]) & set(other[1])) < 25
    # For ever, lest a run resumed elsewhere trains on its test.
    assert split_identities(list("abcdefgh"), num_train=3, held_out=2, seed=0) == (
        ["a", "d", "h"],
        ["f", "g"],
    )


def test_more_data_or_another_test_leaves_a_choice_nearly_as_it_was():
    train, held_out = map(set, split_identities(NAMES, num_train=300, held_out=100, seed=0))
    assert set(split_identities(NAMES, num_train=300, held_out=500, seed=0)[0]) == train
    assert set(split_identities(NAMES, num_train=200, held_out=100, seed=0)[0]) < train
    more = split_identities([*NAMES, "new"], num_train=300, held_out=100, seed=0)
    assert len(train - set(more[0])) <= 1 and len(held_out - set(more[1])) <= 1
    one = min(train)
    without = set(split_identities(NAMES, num_train=300, held_out=[one], seed=0)[0])
    assert train - without == {one}


@pytest.mark.parametrize(
    ("kwargs", "sentence"),
    [
        (
            {"held_out": 1000},
            "Cannot hold out 1,000 of 1,000 identities: choose a number of at least 0 that leaves "
            "one to train on.",
        ),
        (
            {"held_out": -1},
            "Cannot hold out -1 of 1,000 identities: choose a number of at least 0 that leaves one "
            "to train on.",
        ),
        (
            {"held_out": ["m.0000", "m.000x"]},
            "There is no identity 'm.000x' to hold out among the 1,000 in the data. Did you mean",
        ),
        (
            {"held_out": 400, "num_train": 601},
            "Cannot train on 601 identities (0: all), since 600 of 1,000 are not held out: "
            "train on fewer, or hold out fewer.",
        ),
        (
            {"held_out": NAMES},
            "Cannot train on 0 identities (0: all), since 0 of 1,000 are not held out: train "
            "on fewer, or hold out fewer.",
        ),
        (
            {"num_train": -1},
            "Cannot train on -1 identities (0: all), since 1,000 of 1,000 are not held out: "
            "train on fewer, or hold out fewer.",
        ),
    ],
)
def test_a_choice_that_can_not_be_made_is_refused(kwargs, sentence):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}"):
        split_identities(NAMES, **({"num_train": 0, "held_out": 0, "seed": 0} | kwargs))


def test_a_list_of_names_is_read(tmp_path):
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeff# Held out\r\nB_Two\r\n\r\n  Zoë Ångström \r\nB_Two\r\n".encode())
    assert read_names(path) == ["B_Two", "Zoë Ångström"]


def test_a_list_without_names_is_refused(tmp_path):
    path = tmp_path / "names.txt"
    expected = "expected one name per line."
    assert_input_error(
        f"{path} cannot be read as a list of identities (No such file or directory); {expected}",
        read_names,
        path,
    )
    path.write_bytes(b"\xff\xfe")
    assert_input_error(
        f"{path} cannot be read as a list of identities (it is not text in UTF-8); {expected}",
        read_names,
        path,
    )
    path.write_text("\n# nothing\n")
    assert_input_error(f"{path} has no names of identities; write one per line.", read_names, path)
