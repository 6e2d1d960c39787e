"""Tracing a network without computing anything."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import Jaxpr


def abstract_variables(model: nn.Module, image_shape: tuple[int, int, int]) -> Mapping[str, Any]:
    """Returns the shapes of the variables that `model.init` creates, without computing them."""
    train = _train_argument(model)
    return nn.meta.unbox(
        jax.eval_shape(lambda x: model.init(jax.random.key(0), x, **train), _images(image_shape))
    )


def evaluation_jaxpr(
    model: nn.Module, variables: Mapping[str, Any], image_shape: tuple[int, int, int]
) -> Jaxpr:
    """Returns the traced evaluation of one image.

    Args:
      model: called as `model(images, train=False)`, or `model(images)` if it takes no `train`.
      variables: arrays, or their shapes from `abstract_variables`.
      image_shape: (height, width, channels).
    """
    train = _train_argument(model)
    return jax.make_jaxpr(lambda variables, x: model.apply(variables, x, **train))(
        variables, _images(image_shape)
    ).jaxpr


def _images(image_shape: tuple[int, int, int]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)


def _train_argument(model: nn.Module) -> dict[str, Any]:
    parameters = inspect.signature(model.__call__).parameters.values()
    takes_train = any(
        p.name == "train" or p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters
    )
    return {"train": False} if takes_train else {}
