"""A network layer by layer: shapes, parameters, MACs, activations and arithmetic intensity."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from functools import partial

import flax.linen as nn
import jax
from jax.extend.core import Jaxpr

from shift_jax import ops
from shift_jax.counting.macs import layer_scope, mark_arrays, walk
from shift_jax.counting.tracing import abstract_variables, evaluation_jaxpr

NETWORK = "."
"""The row of what the network itself does, outside of any layer."""


@dataclass(frozen=True)
class LayerRow:
    """One layer that has parameters or MACs.

    Attributes:
      name: the layer's path, such as "group1_block1/conv1"; "." is the network itself.
      kind: the class name of its module.
      output_shape: without the batch axis; None if evaluation does not call the layer.
      params: trained parameters of the layer, without those of layers inside it.
      macs: MACs of one image, without those of layers inside it.
      activation_bytes: the bytes of all inputs and outputs for one image, in their own dtypes: the
        D_F²·(M + N) of Eq. 4 and 5.
      intensity: MACs / (input + output + weight elements): Eq. 4 for standard convolutions, Eq. 5
        for depthwise ones. Biases do not count, as in the paper. None without MACs.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    params: int
    macs: int
    activation_bytes: int
    intensity: float | None


@dataclass
class _Tally:
    output_shape: tuple[int, ...] | None = None
    params: int = 0
    weight_elements: int = 0
    macs: int = 0
    activation_elements: int = 0
    activation_bytes: int = 0


def layer_table(model: nn.Module, image_shape: tuple[int, int, int]) -> list[LayerRow]:
    """Returns every layer with parameters or MACs, in the order of the computation.

    It computes shapes only. The parameters add up to `count_parameters`, the MACs to `count_macs`.

    Args:
      model: any linen network on images, called as `model(images, train=False)`, or as
        `model(images)` if it takes no `train`.
      image_shape: (height, width, channels).

    Raises:
      InputError: the network multiplies in a loop of unknown length.
    """
    kinds: dict[str, str] = {}
    # XLA's backend hides no product in a kernel and fuses no layer with its neighbor.
    with ops.implementation("xla"), nn.intercept_methods(partial(_note_kind, kinds)):
        variables = abstract_variables(model, image_shape)
        jaxpr = _marked_jaxpr(model, variables, image_shape)
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    # The place of a layer's first product, or of its first input if it has no product.
    order: dict[str, int] = {}
    for number, event in enumerate(walk(jaxpr)):
        tally = tallies[event.layer]
        if event.kind == "macs":
            if not tally.macs:
                order[event.layer] = number
            tally.macs += event.macs * event.times
            continue
        order.setdefault(event.layer, number)
        elements = math.prod(event.shape) * event.times
        tally.activation_elements += elements
        tally.activation_bytes += elements * event.dtype.itemsize
        if event.kind == "output" and tally.output_shape is None:
            # The traced batch is one image; under vmap its axis is no longer the first.
            batched = event.shape[:1] == (1,)
            tally.output_shape = event.shape[1:] if batched else event.shape
    _add_parameters(tallies, variables.get("params", {}), kinds)
    layers = [layer for layer, tally in tallies.items() if tally.params or tally.macs]
    layers.sort(key=lambda layer: order.get(layer, math.inf))
    return [_row(layer, kinds[layer], tallies[layer]) for layer in layers]


def _marked_jaxpr(model: nn.Module, variables, image_shape: tuple[int, int, int]) -> Jaxpr:
    """Traces the evaluation of one image, with a scope and marks around every layer."""
    active: list[str] = []

    def mark_layer(call, args, kwargs, context):
        layer = "/".join(context.module.path)
        with layer_scope(layer):
            # Methods of a layer call each other, and a lifted class (scan, remat) its inner one.
            if context.method_name == "setup" or layer in active:
                return call(*args, **kwargs)
            active.append(layer)
            try:
                args, kwargs = mark_arrays((args, kwargs), "input", layer)
                return mark_arrays(call(*args, **kwargs), "output", layer)
            finally:
                active.remove(layer)

    with nn.intercept_methods(mark_layer):
        return evaluation_jaxpr(model, variables, image_shape)


def _note_kind(kinds: dict[str, str], call, args, kwargs, context):
    # A lifted class and the class inside it share a path: the inner class comes last.
    kinds["/".join(context.module.path)] = type(context.module).__name__
    return call(*args, **kwargs)


def _add_parameters(tallies: dict[str, _Tally], params, kinds: dict[str, str]) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [str(getattr(key, "key", key)) for key in path]
        owner = "/".join(names[:-1])
        # A parameter may itself be a tree, whose owner is further up.
        while owner not in kinds:
            owner = owner.rpartition("/")[0]
        tally = tallies[owner]
        tally.params += leaf.size
        # Eq. 4 and 5 count kernels only: biases are no operands of a product.
        if leaf.ndim > 1 and names[-1] != "bias":
            tally.weight_elements += leaf.size


def _row(layer: str, kind: str, tally: _Tally) -> LayerRow:
    moved = tally.activation_elements + tally.weight_elements
    return LayerRow(
        name=layer or NETWORK,
        kind=kind,
        output_shape=tally.output_shape,
        params=tally.params,
        macs=tally.macs,
        activation_bytes=tally.activation_bytes,
        intensity=tally.macs / moved if tally.macs else None,
    )
