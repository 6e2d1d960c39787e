"""Learning-rate schedules, and SGD and Adam as the paper's and the authors' recipes need them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax

from shift_jax.config import check

if TYPE_CHECKING:
    from shift_jax.config import OptimizerConfig, ScheduleConfig


def make_schedule(config: ScheduleConfig, steps_per_epoch: int, total_steps: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step.

    Args:
      config: the section `schedule` of the experiment.
      steps_per_epoch: steps in one epoch.
      total_steps: steps in the whole run.

    Raises:
      InputError: a field that is out of range.
    """
    check(config, "schedule.")
    peak = config.learning_rate
    if config.name == "step":
        boundaries = {
            round(epoch * steps_per_epoch): config.factor for epoch in config.boundaries_epochs
        }
        schedule = optax.piecewise_constant_schedule(peak, boundaries)
    elif config.name == "cosine":
        schedule = optax.cosine_decay_schedule(peak, total_steps)
    else:
        schedule = optax.constant_schedule(peak)
    warmup_steps = round(config.warmup_epochs * steps_per_epoch)
    if not warmup_steps:
        return schedule
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / warmup_steps)


def make_optimizer(
    config: OptimizerConfig, schedule: optax.Schedule, steps_per_epoch: int
) -> optax.GradientTransformation:
    """Returns SGD or Adam, in PyTorch's order: clip, coupled decay, momentum, learning rate.

    Args:
      config: the section `optimizer` of the experiment.
      schedule: the learning rate.
      steps_per_epoch: steps in one epoch.

    Raises:
      InputError: a field that is out of range.
    """
    check(config, "optimizer.")
    mask = _is_kernel if config.weight_decay_on == "kernels" else None
    decay = optax.add_decayed_weights(config.weight_decay, mask)
    if config.name == "adam":
        momentum = optax.scale_by_adam()
    else:
        momentum = optax.trace(config.momentum, config.nesterov)
    if config.restart_momentum_each_epoch:
        momentum = restart_every(steps_per_epoch, momentum)
    first, second = (decay, momentum) if config.weight_decay_coupled else (momentum, decay)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    return optax.chain(clip, first, second, optax.scale_by_learning_rate(schedule))


class RestartState(NamedTuple):
    """State of `restart_every`: the number of steps, and the state of the inner transformation."""

    count: jax.Array
    inner: optax.OptState


def restart_every(steps: int, inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Returns `inner` with its state initialized again at step 0, `steps`, 2 · `steps`, …"""

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
