"""Learning-rate schedules, and SGD and Adam as the paper's and the authors' recipes need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax

from shift_jax.errors import InputError, check_choice, did_you_mean

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def make_schedule(config: ConfigDict, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    Args:
      config: `schedule` of the experiment's config:
        name: "step" (multiplied by `factor` at each of `boundaries_epochs`), "cosine" (to zero at
          the last step) or "constant".
        learning_rate: the value after the warm-up.
        warmup_epochs: linear from zero over this long; the rest of the schedule is not delayed.
      steps_per_epoch: steps in one epoch.
      total_steps: of the whole run.

    Raises:
      InputError: unknown name.
    """
    peak = config.learning_rate
    if config.name == "step":
        boundaries = {
            round(epoch * steps_per_epoch): config.factor for epoch in config.boundaries_epochs
        }
        schedule = optax.piecewise_constant_schedule(peak, boundaries)
    elif config.name == "cosine":
        schedule = optax.cosine_decay_schedule(peak, total_steps)
    elif config.name == "constant":
        schedule = optax.constant_schedule(peak)
    else:
        names = ("step", "cosine", "constant")
        raise InputError(
            f"schedule.name is {config.name!r}, expected one of {', '.join(names)}."
            f"{did_you_mean(config.name, names)}"
        )
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if not warmup_steps:
        return schedule
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / warmup_steps)


def make_optimizer(
    config: ConfigDict, schedule: optax.Schedule, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Returns SGD or Adam, in PyTorch's order: clip, coupled decay, momentum, learning rate.

    Args:
      config: `optimizer` of the experiment's config:
        name: "sgd", or "adam" (β 0.9 and 0.999, ε 1e-8), which has no use for the next two fields.
        momentum: decay of the momentum buffer, which adds up gradients without dampening.
        nesterov: whether to look ahead.
        weight_decay: coefficient of the weights, 0 for none.
        weight_decay_coupled: True adds the decay to the gradient, so that it goes through the
          momentum (PyTorch's SGD, L2 regularisation); False subtracts learning rate × decay ×
          weights beside it.
        weight_decay_on: "all" parameters (the authors' code, BatchNorm and biases too) or
          "kernels".
        clip_norm: largest global norm of the gradient, 0 for no clipping.
        restart_momentum_each_epoch: True for the authors' CIFAR code, which made a new optimizer,
          and with it an empty momentum buffer, every epoch.
      schedule: the learning rate.
      steps_per_epoch: steps in one epoch.

    Raises:
      InputError: unknown name or `weight_decay_on`.
    """
    # Configs of older checkpoints do not have it.
    name = config.get("name", "sgd")
    check_choice("optimizer.name", name, ("sgd", "adam"))
    if config.weight_decay_on not in ("all", "kernels"):
        raise InputError(
            f"optimizer.weight_decay_on is {config.weight_decay_on!r}, expected 'all' or 'kernels'."
        )
    mask = _is_kernel if config.weight_decay_on == "kernels" else None
    decay = optax.add_decayed_weights(config.weight_decay, mask)
    if name == "adam":
        momentum = optax.scale_by_adam()
    else:
        momentum = optax.trace(config.momentum, config.nesterov)
    if config.restart_momentum_each_epoch:
        momentum = restart_every(steps_per_epoch, momentum)
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
        *((decay, momentum) if config.weight_decay_coupled else (momentum, decay)),
        optax.scale_by_learning_rate(schedule),
    )


class RestartState(NamedTuple):
    """State of `restart_every`: steps taken, and the inner transformation's state."""

    count: jax.Array
    inner: optax.OptState


def restart_every(steps: int, inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns `inner` with its state initialised anew at step 0, `steps`, 2 · `steps`, …"""

    def init(params) -> RestartState:
        return RestartState(jnp.zeros((), jnp.int32), inner.init(params))

    def update(updates, state: RestartState, params=None):
        restart = state.count % steps == 0
        inner_state = jax.tree.map(
            lambda fresh, old: jnp.where(restart, fresh, old), inner.init(updates), state.inner
        )
        updates, inner_state = inner.update(updates, inner_state, params)
        return updates, RestartState(state.count + 1, inner_state)

    return optax.GradientTransformation(init, update)


def _is_kernel(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)
