"""Parameters and multiply-accumulates (MACs) of a network, from the computation itself."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr

from shift_jax.errors import InputError
from shift_jax.models.cifar import CifarNet


def count_parameters(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the number of trained parameters: weights, biases, BatchNorm scales and biases.

    Nothing is computed; only shapes are. BatchNorm's running statistics do not count.

    Args:
      model: called as `model(images, train=False)`.
      image_shape: (height, width, channels).
    """
    return sum(leaf.size for leaf in jax.tree.leaves(_variables(model, image_shape)["params"]))


def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the true MACs of one image: those of every convolution and matrix product traced.

    The paper calls them FLOPs. Additions, activations, normalisations and pooling do not count.

    Args:
      model: called as `model(images, train=False)`; any network, not only this package's.
      image_shape: (height, width, channels).

    Raises:
      InputError: the network has a loop whose length is not known before it runs.
    """
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda variables, x: model.apply(variables, x, train=False))(
        _variables(model, image_shape), images
    )
    return _jaxpr_macs(jaxpr.jaxpr)


def paper_cifar_macs(model: CifarNet) -> int:
    """Returns the MACs as the paper counted them in Table 5, for its CIFAR networks only.

    Every convolution of a block, the shortcut's too, is taken at the block's INPUT resolution; the
    stem and the classifier are constants, 1024·27·64 and 1024·64·4·10, whatever the network.

    Raises:
      InputError: not a CIFAR network.
    """
    if not isinstance(model, CifarNet):
        raise InputError(
            f"The paper's counter is a formula for its CIFAR networks, not for "
            f"{type(model).__name__}: use count_macs."
        )
    total = 1024 * 27 * 64 + 1024 * 64 * 4 * 10
    for path, leaf in jax.tree_util.tree_leaves_with_path(_variables(model, (32, 32, 3))["params"]):
        block = re.fullmatch(r"group(\d)_block(\d+)", path[0].key)
        if block and path[-1].key == "kernel":
            group, index = map(int, block.groups())
            # Group g works at side 32 / 2^(g-1); its first block's input is still twice that.
            side = 32 >> (group - 1 if index > 1 or group == 1 else group - 2)
            total += leaf.size * side**2
    return total


def _variables(model: nn.Module, image_shape: tuple[int, int, int]):
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)


def _jaxpr_macs(jaxpr: Jaxpr) -> int:
    total = 0
    for equation in jaxpr.eqns:
        primitive, params = equation.primitive.name, equation.params
        if primitive == "dot_general":
            (lhs_contracting, _), _ = params["dimension_numbers"]
            lhs = equation.invars[0].aval.shape
            contracted = math.prod(lhs[axis] for axis in lhs_contracting)
            total += math.prod(equation.outvars[0].aval.shape) * contracted
        elif primitive == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            out_features = kernel[params["dimension_numbers"].rhs_spec[0]]
            per_output = math.prod(kernel) // out_features
            total += math.prod(equation.outvars[0].aval.shape) * per_output
        else:
            inner = [_jaxpr_macs(nested) for nested in _nested_jaxprs(params)]
            if primitive == "while" and any(inner):
                raise InputError(
                    "MACs cannot be counted: the network multiplies inside a while loop, whose "
                    "length is only known when it runs; use jax.lax.scan or fori_loop with "
                    "constant bounds."
                )
            # Of a cond's branches one runs: the costliest, or the same on another platform.
            cost = max(inner) if primitive == "cond" else sum(inner)
            total += cost * (params["length"] if primitive == "scan" else 1)
    return total


def _nested_jaxprs(params: dict) -> Iterator[Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item
