"""Examples under the labels of a network that learned other classes."""

import numpy as np
import pytest

from shift_jax.data import ArraySource, class_difference, known_classes
from shift_jax.errors import InputError


def source(*names, labels=None):
    labels = np.arange(len(names)) if labels is None else np.array(labels)
    images = labels.astype(np.uint8)[:, None, None, None]
    return ArraySource(images, labels.astype(np.int32), len(names), names)


def pairs(examples):
    """The image of each example, which is its label before, and its label now."""
    read = [examples[index] for index in range(len(examples))]
    return [(int(each["image"].item()), int(each["label"])) for each in read]


def test_equal_classes_are_left_alone():
    same = source("cat", "dog")
    assert known_classes(same, ("cat", "dog")) is same


def test_labels_are_those_of_the_learned_order():
    found = known_classes(source("cat", "dog", "owl"), ("owl", "cat", "dog"))
    assert found.class_names == ("owl", "cat", "dog") and found.num_classes == 3
    assert pairs(found) == [(0, 1), (1, 2), (2, 0)]


@pytest.mark.parametrize(
    ("names", "difference"),
    [
        (("cat", "fox", "owl"), "'dog' is missing and 'fox' is new"),
        (("cat", "owl"), "'dog' is missing"),
        (("cat", "dog", "owl", "a", "b", "c", "d"), "'a', 'b', 'c' and 1 more are new"),
    ],
)
def test_other_classes_are_refused(names, difference):
    with pytest.raises(InputError, match=f"{difference}; name .* the same 3 classes.*--allow_sub"):
        known_classes(source(*names), ("cat", "dog", "owl"))


def test_the_known_ones_of_other_classes():
    other = source("ant", "dog", "owl", labels=[2, 0, 1, 2])
    found = known_classes(other, ("cat", "dog", "owl"), allow_subset=True)
    assert pairs(found) == [(2, 2), (1, 1), (2, 2)]
    assert found.image_shape == (1, 1, 1)
    with pytest.raises(InputError, match="None of the examples is of a class"):
        known_classes(source("ant", "bee"), ("cat", "dog"), allow_subset=True)


def test_an_order_is_no_difference_in_names():
    assert class_difference(("a", "b"), ("b", "a")) == "the same classes come in another order"
