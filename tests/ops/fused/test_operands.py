import jax
import jax.numpy as jnp
import pytest

from shift_jax.ops.fused.operands import WITH_BATCH, Operands
from shift_jax.ops.fused.spec import Spec


def test_fields_say_which_arrays_have_a_batch_axis():
    assert {"x", "residual", "dy"} == WITH_BATCH


def test_what_is_absent_is_no_leaf():
    operands = Operands(x=jnp.zeros(2), prologue_bias=jnp.ones(3))
    assert list(operands.present()) == ["x", "prologue_bias"]
    doubled = jax.tree.map(lambda array: 2 * array, operands)
    assert doubled.prologue_bias.tolist() == [2, 2, 2] and doubled.w is None


@pytest.mark.parametrize("name", ["prologue_scale", "prologue_bias", "prologue_relu"])
def test_any_of_scale_bias_and_relu_is_a_prologue(name):
    still = ((0, 0),)
    assert not Operands(bias=jnp.ones(1)).has_prologue(Spec(still, relu="last"))
    if name == "prologue_relu":
        assert Operands().has_prologue(Spec(still, prologue_relu=True))
    else:
        assert Operands(**{name: jnp.ones(1)}).has_prologue(Spec(still))
