"""Multiply-accumulates (MACs), found by walking over a traced network."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import flax.linen as nn
import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr

from shift_jax import ops
from shift_jax.counting.tracing import abstract_variables, evaluation_jaxpr
from shift_jax.errors import InputError

# Names that no user's scope or checkpoint has by chance.
_SCOPE = re.compile(r"shift_jax_layer<([^>]*)>")
_TAG = re.compile(r"shift_jax_(input|output)<([^>]*)>")


def count_macs(model: nn.Module, image_shape: tuple[int, int, int]) -> int:
    """Returns the true MACs of one image: those of every convolution and matrix product traced.

    The paper calls them FLOPs. Additions, activations, normalizations and pooling do not count.

        >>> from shift_jax import count_macs, create_model
        >>> count_macs(create_model("shiftresnet20"), (32, 32, 3))
        5948032

    Args:
      model: as for `count_parameters`; any network, not only this package's.
      image_shape: (height, width, channels).

    Raises:
      InputError: the network multiplies in a loop of unknown length.
    """
    # XLA's backend hides no product in a kernel.
    with ops.implementation("xla"):
        variables = abstract_variables(model, image_shape)
        return _macs(walk(evaluation_jaxpr(model, variables, image_shape)))


@dataclass(frozen=True)
class Event:
    """A product of arrays, or an array that enters or leaves a layer.

    Attributes:
      layer: the path of the innermost layer around it, "" for the network itself.
      kind: "macs" for a convolution or matrix product; "input" or "output" for an array that enters
        or leaves the layer.
      shape, dtype: those of the array, or of the product's result.
      macs: the MACs of one run; 0 for arrays.
      times: the number of runs, more than one inside a scan.
    """

    layer: str
    kind: str
    shape: tuple[int, ...]
    dtype: Any
    macs: int
    times: int = 1


def layer_scope(layer: str):
    """Returns a context in which traced operations belong to `layer`, as `walk` reports them."""
    return jax.named_scope(f"shift_jax_layer<{layer}>")


def mark_arrays(tree: Any, kind: str, layer: str) -> Any:
    """Marks the arrays of `tree` as "input" or "output" of `layer`; returns the marked tree.

    The marks are equations, not notes in Python: an equation has the shapes with which vmap really
    computes, and it lies inside the scan that repeats it.
    """

    def mark(leaf):
        # Neither flags and other static arguments nor random keys are activations.
        if isinstance(leaf, jax.Array) and not jax.dtypes.issubdtype(
            leaf.dtype, jax.dtypes.extended
        ):
            return checkpoint_name(leaf, f"shift_jax_{kind}<{layer}>")
        return leaf

    return jax.tree.map(mark, tree)


def walk(jaxpr: Jaxpr, layer: str = "") -> Iterator[Event]:
    """Yields the products and marks of a jaxpr and of all jaxprs inside it.

    Args:
      jaxpr: a jaxpr traced with `layer_scope` around its layers; without scopes, every event
        belongs to `layer`.
      layer: the layer around the whole jaxpr.

    Raises:
      InputError: a loop of unknown length contains products.
    """
    for equation in jaxpr.eqns:
        primitive, params = equation.primitive.name, equation.params
        # Name stacks start again inside scan, remat and custom_vjp: there the outer layer holds.
        scopes = _SCOPE.findall(str(equation.source_info.name_stack))
        inside = scopes[-1] if scopes else layer
        tag = _TAG.fullmatch(params["name"]) if primitive == "name" else None
        macs = _product_macs(equation)
        if tag or macs:
            out = _aval(equation.outvars[0] if macs else equation.invars[0])
            kind, owner = tag.groups() if tag and not macs else ("macs", inside)
            yield Event(owner, kind, out.shape, out.dtype, macs)
            continue
        inner = [list(walk(nested, inside)) for nested in _nested_jaxprs(params)]
        if primitive == "while" and any(map(_macs, inner)):
            raise InputError(
                "MACs cannot be counted: the network multiplies inside a while loop of unknown "
                "length; use jax.lax.scan, or fori_loop with constant bounds."
            )
        if primitive == "cond":
            # One branch of a cond runs: count the costliest. Platforms' branches cost the same.
            inner = [max(inner, key=_macs)]
        times = params["length"] if primitive == "scan" else 1
        for events in inner:
            for event in events:
                yield replace(event, times=event.times * times) if times != 1 else event


def _macs(events: Iterable[Event]) -> int:
    return sum(event.macs * event.times for event in events)


def _product_macs(equation) -> int:
    """MACs of a convolution or matrix product, 0 for anything else."""
    params = equation.params
    if equation.primitive.name == "dot_general":
        (lhs_contracting, _), _ = params["dimension_numbers"]
        lhs = equation.invars[0].aval.shape
        per_output = math.prod(lhs[axis] for axis in lhs_contracting)
    elif equation.primitive.name == "conv_general_dilated":
        lhs, kernel = (operand.aval.shape for operand in equation.invars[:2])
        spec = params["dimension_numbers"]
        if math.prod(params["lhs_dilation"]) > 1:
            # A transposed convolution multiplies each input pixel by the whole kernel, and not the
            # zeros between the pixels.
            pixels = math.prod(lhs[axis] for axis in (spec.lhs_spec[0], *spec.lhs_spec[2:]))
            return pixels * math.prod(kernel)
        per_output = math.prod(kernel) // kernel[spec.rhs_spec[0]]
    else:
        return 0
    return math.prod(equation.outvars[0].aval.shape) * per_output


def _nested_jaxprs(params: dict) -> Iterator[Jaxpr]:
    for value in params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if isinstance(item, ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, Jaxpr):
                yield item


def _aval(variable: Any) -> Any:
    # JAX declares the base class of all values; what networks compute with are shaped arrays.
    return variable.aval
