"""What tests of all sources assert."""

import pickle
import re

import numpy as np
import pytest

from shift_jax.data import load_source
from shift_jax.errors import InputError


def assert_refused(sentence, *args, **kwargs):
    assert_input_error(sentence, load_source, *args, **kwargs)


def assert_input_error(sentence, function, *args, **kwargs):
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        function(*args, **kwargs)


def assert_is_source(source):
    example = source[len(source) - 1]
    assert set(example) == {"image", "label"}
    assert example["image"].dtype == np.uint8 and example["image"].shape == source.image_shape
    assert isinstance(example["label"], np.int32) and 0 <= example["label"] < source.num_classes
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy) == len(source) and copy.class_names == source.class_names
    np.testing.assert_array_equal(copy[0]["image"], source[0]["image"])
