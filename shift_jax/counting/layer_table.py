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
"""Name of the row for what the network does itself, outside of any layer."""


@dataclass(frozen=True)
class LayerRow:
    """One layer that has parameters or MACs.

    Attributes:
      name: its path, such as "group1_block1/conv1"; "." is the network itself.
      kind: class name of its module.
      output_shape: without the batch axis; None where evaluation does not call it.
      params: trained ones that belong to it and to no layer inside it.
      macs: of one image; a product outside of any layer inside it counts here.
      activation_bytes: of the inputs and outputs of one image in their own dtypes, for all its
        calls: the D_F²·(M + N) of Eq. 4 and 5, in bytes.
      intensity: MACs / (input + output + weight elements), Eq. 4 for standard convolutions and
        Eq. 5 for depthwise ones; as there, biases are left out. None without MACs.
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

    Nothing is computed; only shapes are. The parameters add up to `count_parameters` and the MACs
    to `count_macs`.

    Args:
      model: any linen network from images to anything, called as `model(images, train=False)`,
        or as `model(images)` where it takes no `train`.
      image_shape: (height, width, channels).

    Raises:
      InputError: the network multiplies in a loop whose length is not known before it runs.
    """
    kinds: dict[str, str] = {}
    # Where no kernel hides a product and no layer applies its neighbour.
    with ops.implementation("xla"), nn.intercept_methods(partial(_note_kind, kinds)):
        variables = abstract_variables(model, image_shape)
        jaxpr = _marked_jaxpr(model, variables, image_shape)
    tallies: dict[str, _Tally] = defaultdict(_Tally)
    # Of a layer's first product, or of its first input where it has no products.
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
            # One image was traced; under vmap its axis is no longer the first.
            batched = event.shape[:1] == (1,)
            tally.output_shape = event.shape[1:] if batched else event.shape
    _add_parameters(tallies, variables.get("params", {}), kinds)
    layers = [layer for layer, tally in tallies.items() if tally.params or tally.macs]
    layers.sort(key=lambda layer: order.get(layer, math.inf))
    return [_row(layer, kinds[layer], tallies[layer]) for layer in layers]


def _marked_jaxpr(model: nn.Module, variables, image_shape: tuple[int, int, int]) -> Jaxpr:
    """The evaluation of one image, traced with scopes and marks around every layer."""
    active: list[str] = []

    def mark_layer(call, args, kwargs, context):
        layer = "/".join(context.module.path)
        with layer_scope(layer):
            # A layer's methods call each other, and a lifted class (scan, remat) the one inside.
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
    # A lifted class and the class inside it share a path: the inner one is noted last.
    kinds["/".join(context.module.path)] = type(context.module).__name__
    return call(*args, **kwargs)


def _add_parameters(tallies: dict[str, _Tally], params, kinds: dict[str, str]) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [str(getattr(key, "key", key)) for key in path]
        owner = "/".join(names[:-1])
        # A parameter may itself be a tree: then its owner is further up.
        while owner not in kinds:
            owner = owner.rpartition("/")[0]
        tally = tallies[owner]
        tally.params += leaf.size
        # Eq. 4 and 5 have kernels only: biases are not operands of a product.
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
