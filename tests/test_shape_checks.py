"""Tests check the shapes that ops, layers, counting and models promise."""

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from shift_jax import ops
from shift_jax.errors import InputError
from shift_jax.layers import Shift

X = jnp.zeros((1, 4, 4, 9))


def test_a_result_of_another_shape_than_promised_fails(monkeypatch):
    assert Shift().apply({}, X).shape == X.shape
    monkeypatch.setattr(ops, "shift", lambda x, *arguments: x[:, 1:])
    with pytest.raises(TypeCheckError, match=r"Shift.__call__"):
        Shift().apply({}, X)


def test_a_function_may_refuse_arguments_itself():
    with pytest.raises(InputError, match="expected .*height, width, channels"):
        ops.shift(X[0, 0])
