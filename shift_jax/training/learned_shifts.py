"""How the offsets of learned shifts are trained (Jeon & Kim 2018, arXiv:1806.07370)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class ShiftsState(NamedTuple):
    """The number of steps, and the state of the optimizer of all parameters."""

    count: jax.Array
    inner: optax.OptState


def learning_shifts(
    inner: optax.GradientTransformation,
    *,
    factor: float,
    normalized: bool,
    frozen_after: int | None,
) -> optax.GradientTransformation:
    """Returns `inner`, which treats offsets as Active Shift and the Sparse Shift Layer do.

    Offsets have no weight decay. Without offsets among the parameters, it does what `inner` does.

    Args:
      inner: the optimizer of all parameters.
      factor: what the updates of offsets are multiplied by.
      normalized: whether the gradient of each channel's (dy, dx) is divided by its length, so that
        its direction alone counts.
      frozen_after: number of steps after which offsets stay as they are; None for never.
    """

    def init(params: Any) -> optax.OptState:
        state = inner.init(params)
        if frozen_after is None:
            return state
        return ShiftsState(jnp.zeros((), jnp.int32), state)

    def update(updates: Any, state: Any, params: Any = None):
        scale: Any = factor
        if frozen_after is not None:
            scale = jnp.where(state.count < frozen_after, factor, 0.0)
            count, state = state.count + 1, state.inner
        if normalized:
            updates = _of_offsets(_direction, updates)
        # The optimizer reads parameters for the weight decay only.
        updates, state = inner.update(updates, state, _of_offsets(jnp.zeros_like, params))
        updates = _of_offsets(lambda update: scale * update, updates)
        return updates, (state if frozen_after is None else ShiftsState(count, state))

    return optax.GradientTransformation(init, update)


def is_offsets(path: tuple[Any, ...]) -> bool:
    """Whether a path in a tree of parameters leads to the offsets of a learned shift."""
    return getattr(path[-1], "key", None) == "offsets"


def _of_offsets(function: Callable[[Any], Any], tree: Any) -> Any:
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: function(leaf) if is_offsets(path) else leaf, tree
    )


def _direction(gradient: jax.Array) -> jax.Array:
    length = jnp.sqrt(jnp.square(gradient).sum(-1, keepdims=True))
    return jnp.where(length > 0, gradient / jnp.where(length > 0, length, 1), gradient)
