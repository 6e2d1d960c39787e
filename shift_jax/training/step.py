"""The train state and the two compiled steps; jax, flax and optax only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from shift_jax.training.mesh import over_batch, replicated

Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """All that a run needs to go on: saved whole in each checkpoint.

    Attributes:
      step: int32, steps taken.
      params: trained parameters.
      batch_stats: BatchNorm's running statistics.
      opt_state: the optimizer's state.
      rng: typed PRNG key, constant; each step folds its number in.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    rng: jax.Array


class Learner(Protocol):
    """What the compiled steps need of a task."""

    def init(self, rng: jax.Array) -> dict: ...

    def loss(
        self, variables: dict, batch: dict, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]: ...

    def evaluation_sums(self, variables: dict, batch: dict) -> Metrics: ...


def init_state(
    learner: Learner, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh
) -> TrainState:
    """Returns the state of step 0, replicated over the mesh."""
    return jax.jit(_initializer(learner, optimizer, seed), out_shardings=replicated(mesh))()


def abstract_state(
    learner: Learner, optimizer: optax.GradientTransformation, seed: int, mesh: Mesh
) -> TrainState:
    """Returns the shapes, types and shardings of the state, without computing it."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=replicated(mesh)),
        jax.eval_shape(_initializer(learner, optimizer, seed)),
    )


def _initializer(learner, optimizer, seed) -> Callable[[], TrainState]:
    def init() -> TrainState:
        init_rng, train_rng = jax.random.split(jax.random.key(seed))
        variables = learner.init(init_rng)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats=variables.get("batch_stats", {}),
            opt_state=optimizer.init(variables["params"]),
            rng=train_rng,
        )

    return init


def make_train_step(
    learner: Learner, optimizer: optax.GradientTransformation, mesh: Mesh
) -> Callable[[TrainState, dict], tuple[TrainState, Metrics]]:
    """Returns the jitted update of one batch sharded over the mesh; it donates the state.

    The metrics are the task's own with "loss" and "gradient_norm" (before clipping) added, all
    scalars of the global batch.
    """

    def train_step(state: TrainState, batch: dict) -> tuple[TrainState, Metrics]:
        rng = jax.random.fold_in(state.rng, state.step)

        def loss_fn(params):
            variables = {"params": params, "batch_stats": state.batch_stats}
            return learner.loss(variables, batch, rng)

        (loss, (batch_stats, metrics)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        return state, {"loss": loss, "gradient_norm": optax.tree.norm(gradients), **metrics}

    return jax.jit(
        train_step,
        in_shardings=(replicated(mesh), over_batch(mesh)),
        out_shardings=replicated(mesh),
        donate_argnums=0,
    )


def make_eval_step(learner: Learner, mesh: Mesh) -> Callable[[dict, dict], Metrics]:
    """Returns the jitted (variables, batch) → sums over the examples of one global batch."""
    return jax.jit(
        learner.evaluation_sums,
        in_shardings=(replicated(mesh), over_batch(mesh)),
        out_shardings=replicated(mesh),
    )
