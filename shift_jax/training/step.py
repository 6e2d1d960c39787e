"""The train state and the two compiled steps, in jax, flax and optax only."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from shift_jax.layers.norm import frozen_norms
from shift_jax.ops import batch_axes
from shift_jax.training.mesh import BATCH_AXES, of_state, over_batch, replicated
from shift_jax.training.optimizer import by_name

Metrics = dict[str, jax.Array]


class TrainState(flax.struct.PyTreeNode):
    """Everything that a run needs to resume; each checkpoint saves it whole.

    Attributes:
      step: int32, number of steps taken.
      params: trained parameters.
      batch_stats: BatchNorm's running statistics.
      opt_state: the optimizer's state.
      rng: typed PRNG key, constant; each step folds its number in.
      ema: exponential moving averages, {"params": …, "batch_stats": …}; empty in runs without.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: optax.OptState
    rng: jax.Array
    ema: Any

    def evaluation_variables(self) -> dict:
        """Returns the variables to evaluate: the averages, if there are any."""
        return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


class Learner(Protocol):
    """What the compiled steps need from a task."""

    def init(self, rng: jax.Array) -> dict: ...

    def loss(
        self, variables: dict, batch: dict, rng: jax.Array
    ) -> tuple[jax.Array, tuple[Any, Metrics]]: ...

    def evaluation_outputs(self, variables: dict, batch: dict) -> Metrics: ...


def init_state(
    learner: Learner,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: Mesh,
    *,
    ema: bool = False,
) -> TrainState:
    """Returns the state at step 0, sharded over the mesh."""
    initializer = _initializer(learner, optimizer, seed, ema)
    return jax.jit(initializer, out_shardings=of_state(mesh, jax.eval_shape(initializer)))()


def abstract_state(
    learner: Learner,
    optimizer: optax.GradientTransformation,
    seed: int,
    mesh: Mesh,
    *,
    ema: bool = False,
) -> TrainState:
    """Returns the shapes, types and shardings of the state without computing it."""
    state = jax.eval_shape(_initializer(learner, optimizer, seed, ema))
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        of_state(mesh, state),
    )


def _initializer(learner, optimizer, seed, ema) -> Callable[[], TrainState]:
    def init() -> TrainState:
        init_rng, train_rng = jax.random.split(jax.random.key(seed))
        variables = {"batch_stats": {}, **learner.init(init_rng)}
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state=optimizer.init(variables["params"]),
            rng=train_rng,
            ema=variables if ema else {},
        )

    return init


def make_train_step(
    learner: Learner,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    accumulation_steps: int = 1,
    ema_decay: float = 0.0,
    frozen: tuple[str, ...] = (),
) -> Callable[[TrainState, dict], tuple[TrainState, Metrics]]:
    """Returns the jitted update on a batch sharded over the mesh; it donates the state.

    `make_update` explains the arguments and the computation.
    """
    train_step = make_update(
        learner,
        optimizer,
        mesh,
        accumulation_steps=accumulation_steps,
        ema_decay=ema_decay,
        frozen=frozen,
    )
    return jax.jit(train_step, in_shardings=(None, over_batch(mesh)), donate_argnums=0)


def make_update(
    learner: Learner,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    accumulation_steps: int = 1,
    ema_decay: float = 0.0,
    frozen: tuple[str, ...] = (),
) -> Callable[[TrainState, dict], tuple[TrainState, Metrics]]:
    """Returns the update on one batch, (state, batch) → (state, metrics), not yet compiled.

    The metrics are the task's own, "loss", and "gradient_norm" before clipping, all scalars of the
    global batch. If the batch has "stop", bool [B], the metric "stop" tells whether any of it is
    true, so that all processes learn of a request at the same step.

    Args:
      learner: the task.
      optimizer: turns gradients into updates.
      mesh: the devices.
      accumulation_steps: number of parts in which a batch is computed, one after the other, to save
        memory. Part i of n has the rows i, i + n, i + 2n, … of the batch. Gradients and metrics are
        the means over the parts; BatchNorm sees one part at a time.
      ema_decay: d in the moving averages d · ema + (1 - d) · new of parameters and statistics, or
        (1 + step) / (10 + step) as long as that is smaller; 0 for no average.
      frozen: beginnings of names of parameters that get no gradients, and whose BatchNorm uses its
        running statistics. The optimizer must leave them as they are.
    """

    def train_step(state: TrainState, batch: dict) -> tuple[TrainState, Metrics]:
        batch = dict(batch)
        stop = batch.pop("stop", None)
        rng = jax.random.fold_in(state.rng, state.step)
        with batch_axes(*BATCH_AXES), frozen_norms(frozen):
            gradients, batch_stats, metrics = _gradients(
                learner, state, batch, rng, accumulation_steps, mesh, frozen
            )
        # Each device then gets its part of the sum, not all of it.
        gradients = _sharded(mesh, gradients)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        if stop is not None:
            metrics["stop"] = stop.any()
        state = state.replace(
            step=state.step + 1,
            params=params,
            batch_stats=batch_stats,
            opt_state=opt_state,
        )
        if ema_decay:
            state = state.replace(ema=_moved_average(state, ema_decay))
        return _sharded(mesh, state), jax.lax.with_sharding_constraint(metrics, replicated(mesh))

    return train_step


def _sharded(mesh: Mesh, state: Any) -> Any:
    return jax.lax.with_sharding_constraint(state, of_state(mesh, state))


def _gradients(
    learner: Learner,
    state: TrainState,
    batch: dict,
    rng: jax.Array,
    parts: int,
    mesh: Mesh,
    frozen: tuple[str, ...],
) -> tuple[Any, Any, Metrics]:
    """Returns the mean gradients, the new batch_stats and the mean metrics of a batch."""

    def of_part(batch_stats, batch, rng):
        def loss_fn(params):
            if frozen:
                params = by_name(
                    lambda name, x: jax.lax.stop_gradient(x) if name.startswith(frozen) else x,
                    params,
                )
            if 1 < mesh.shape["fsdp"] == mesh.size:
                # Otherwise XLA moves parts of the batch instead of the weights (TPU compiler,
                # ShiftNet-A on 16 chips: 61 GB of memory traffic against 50 GB).
                params = jax.lax.with_sharding_constraint(params, replicated(mesh))
            return learner.loss({"params": params, "batch_stats": batch_stats}, batch, rng)

        (loss, (batch_stats, metrics)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params
        )
        return (gradients, {"loss": loss, **metrics}), batch_stats

    if parts == 1:
        (gradients, metrics), batch_stats = of_part(state.batch_stats, batch, rng)
        return gradients, batch_stats, metrics

    # A part has every n-th row of each device, so that no row moves to another device.
    split = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]), batch)

    def add_part(carry, index):
        sums, batch_stats = carry
        part = jax.tree.map(partial(jax.lax.dynamic_index_in_dim, index=index, axis=1), split)
        part = jax.tree.map(lambda x: x.squeeze(1), part)
        results, batch_stats = of_part(batch_stats, part, jax.random.fold_in(rng, index))
        return (jax.tree.map(jnp.add, sums, results), batch_stats), None

    first = jax.tree.map(lambda x: x[:, 0], split)
    zeros = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype),
        jax.eval_shape(of_part, state.batch_stats, first, rng)[0],
    )
    (sums, batch_stats), _ = jax.lax.scan(
        add_part, (zeros, state.batch_stats), jnp.arange(parts, dtype=jnp.int32)
    )
    gradients, metrics = jax.tree.map(lambda x: x / parts, sums)
    return gradients, batch_stats, metrics


def _moved_average(state: TrainState, decay: float) -> Any:
    """Returns the averages after the update to `state`, whose step is counted already."""
    # With a constant decay the average would remember the random initialization for long.
    kept = jnp.minimum(decay, state.step / (9 + state.step))
    new = {"params": state.params, "batch_stats": state.batch_stats}
    return jax.tree.map(lambda ema, new: kept * ema + (1 - kept) * new, state.ema, new)


def make_eval_step(learner: Learner, mesh: Mesh) -> Callable[[dict, dict], Metrics]:
    """Returns the jitted (variables, batch) → the task's outputs for one global batch.

    As in the train step, "stop" in a batch returns as whether any of it is true.
    """

    def eval_step(variables: dict, batch: dict) -> Metrics:
        batch = dict(batch)
        stop = batch.pop("stop", None)
        with batch_axes(*BATCH_AXES):
            outputs = learner.evaluation_outputs(variables, batch)
        return outputs if stop is None else {**outputs, "stop": stop.any()}

    return jax.jit(eval_step, in_shardings=(None, over_batch(mesh)), out_shardings=replicated(mesh))
