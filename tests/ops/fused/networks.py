"""The fused layers of the networks, and each operation of them as a function of arrays."""

from functools import cache, partial

import jax
import jax.numpy as jnp

from benchmarks.tpu_compiler import equations
from shift_jax import create_model
from shift_jax.models.registry import model_record
from shift_jax.ops.fused.operands import Operands

OPERATIONS = ("forward", "input_gradient", "weight_gradient")


@cache
def layers(name: str, **arguments) -> dict:
    """The different layers of a training step: (height, width, channels, features, Spec)."""
    model = create_model(name, **arguments)
    x = jax.ShapeDtypeStruct((2, *model_record(name).image_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    found = {}
    for equation in equations(jax.make_jaxpr(partial(model.init, train=True))(key, x)):
        if equation.primitive.name == "shift_conv":
            static = equation.params["static"]
            leaves = [variable.aval for variable in equation.invars]
            (_, *size), _, features = static.shapes(leaves)
            if any(map(any, static.spec.offsets)):
                found[*size, features, static.spec] = None
    return found


def program(module, operation: str, shape, features: int, spec, prologue: bool, **options):
    """Returns one operation of a backend for bfloat16, and the shapes of its arguments."""
    batch, height, width, channels = shape
    out = (batch, -(-height // spec.stride), -(-width // spec.stride), features)
    x, y = (jax.ShapeDtypeStruct(size, jnp.bfloat16) for size in (shape, out))
    w = jax.ShapeDtypeStruct((channels, features), jnp.bfloat16)
    vector = jax.ShapeDtypeStruct((channels,), jnp.float32) if prologue else None
    options |= {"size": (height, width)} if operation == "input_gradient" else {}
    operands = Operands(
        x=x if prologue or operation != "input_gradient" else None,
        w=w if operation != "weight_gradient" else None,
        prologue_scale=vector,
        prologue_bias=vector,
        dy=y if operation != "forward" else None,
    )
    return partial(getattr(module, operation), spec=spec, **options), (operands,)
