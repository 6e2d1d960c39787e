import pytest

from shift_jax.errors import InputError
from shift_jax.models.classifier import class_count, named_classes
from tests.models.small import random_variables, small_model


@pytest.mark.parametrize("name", ["shiftresnet20", "squeezenet"])
def test_the_number_of_classes_is_in_the_variables(name):
    shape = (32, 32, 3) if name == "shiftresnet20" else (64, 64, 3)
    assert class_count(random_variables(small_model(name, num_classes=7), shape)) == 7


def test_classes_without_names_are_numbers():
    assert [label for label, _ in named_classes((), 3, None, "x")] == ["0", "1", "2"]
    assert named_classes(("n01514859",), 1, None, "x")[0].name == "hen"
    with pytest.raises(InputError, match="x tells 2 classes apart, but there are 1 names"):
        named_classes(["a"], 2, None, "x")
