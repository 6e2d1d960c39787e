import math

import numpy as np
import pytest

from shift_jax.errors import InputError
from shift_jax.tasks.similarity import check_embeddings, cosine


def test_cosine_is_the_angle_between_rows():
    a = np.array([[1.0, 0], [3, 4], [1, 1], [-2, 0]], np.float32)
    b = np.array([[0.0, 5], [6, 8], [1, 0], [7, 0]], np.float32)
    similarities = cosine(a, b)
    assert similarities.dtype == np.float64
    np.testing.assert_allclose(similarities, [0, 1, math.sqrt(0.5), -1], atol=1e-12)
    np.testing.assert_allclose(cosine(1e-200 * a.astype(np.float64), b), similarities, atol=1e-12)
    many = np.random.default_rng(0).normal(size=(200, 7))
    assert cosine(many, 1.1 * many).max() <= 1


def test_cosine_refuses_what_has_no_direction():
    good, zero = np.ones((3, 2)), np.array([[1.0, 0], [0, 0], [0, 0]])
    with pytest.raises(InputError, match="^2 of 3 embeddings are all zero"):
        cosine(good, zero)
    with pytest.raises(InputError, match="^1 of 3 embeddings are not finite"):
        cosine(np.array([[1, 1], [np.nan, 1], [1, 1]]), good)
    with pytest.raises(InputError, match=r"\[3, 2\] and \[2, 2\]"):
        cosine(good, good[:2])
    with pytest.raises(InputError, match=r"are \[3\]"):
        check_embeddings(np.ones(3))
