"""Learning-rate schedules, and SGD and Adam as the paper's and the authors' recipes need them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from shift_jax.config import check
from shift_jax.errors import InputError, did_you_mean
from shift_jax.training.learned_shifts import learning_shifts

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

    The optimizer's `init` raises InputError for a beginning of names that no parameter has.

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
    if config.name == "sgd":
        momentum = optax.trace(config.momentum, config.nesterov)
    else:
        first_beta, second_beta = config.betas
        momentum = optax.scale_by_adam(first_beta, second_beta, config.eps)
    if config.restart_momentum_each_epoch:
        momentum = restart_every(steps_per_epoch, momentum)
    is_coupled = config.weight_decay_coupled and config.name != "adamw"
    first, second = (decay, momentum) if is_coupled else (momentum, decay)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    parts = [clip, first, second, optax.scale_by_learning_rate(schedule)]
    if config.learning_rate_factors:
        parts.append(_scale_by_name(config.learning_rate_factors))
    freeze_epochs = config.freeze_shifts_after_epochs
    optimizer = learning_shifts(
        optax.chain(*parts),
        factor=config.shift_learning_rate_factor,
        normalized=config.normalize_shift_gradients,
        frozen_after=round(freeze_epochs * steps_per_epoch) if freeze_epochs else None,
    )
    if not config.frozen:
        return optimizer
    # The frozen ones have no momentum either, nor a part in the norm of the gradient.
    return optax.partition(
        {"trained": optimizer, "frozen": optax.set_to_zero()}, _kinds(config.frozen)
    )


def by_name(function: Callable[[str, Any], Any], params: Any) -> Any:
    """Maps a function of each parameter's name and value over a tree of parameters.

    A name is a path such as "group1_block1/conv1/kernel".
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, x: function(jax.tree_util.keystr(path, simple=True, separator="/"), x), params
    )


def _kinds(frozen: tuple[str, ...]) -> Callable[[Any], Any]:
    def kinds(params: Any) -> Any:
        _check_beginnings("optimizer.frozen", frozen, params)
        labels = by_name(lambda name, _: "frozen" if name.startswith(frozen) else "trained", params)
        if "trained" not in jax.tree.leaves(labels):
            raise InputError(
                f"optimizer.frozen is {frozen!r}, which leaves no parameter to train: freeze fewer."
            )
        return labels

    return kinds


def _scale_by_name(texts: Sequence[str]) -> optax.GradientTransformation:
    """Returns what multiplies the update of each parameter by the factor for its name."""
    factors: dict[str, float] = {}
    for text in texts:
        beginning, _, number = text.partition("=")
        try:
            factors[beginning] = float(number)
        except ValueError:
            factors[beginning] = math.nan
        if not beginning or not 0 <= factors[beginning] < math.inf:
            raise InputError(
                f"optimizer.learning_rate_factors has {text!r}, expected a beginning of names and "
                "a number of 0 or more, such as 'classifier=10'."
            )

    def factor(name: str) -> float:
        return next((f for beginning, f in factors.items() if name.startswith(beginning)), 1.0)

    def init(params: Any) -> optax.OptState:
        _check_beginnings("optimizer.learning_rate_factors", factors, params)
        return optax.EmptyState()

    def update(updates: Any, state: optax.OptState, params: Any = None):
        return by_name(lambda name, update: factor(name) * update, updates), state

    return optax.GradientTransformation(init, update)


def _check_beginnings(field: str, beginnings: Iterable[str], params: Any) -> None:
    """Raises InputError for a beginning that no name of a parameter has."""
    names = jax.tree.leaves(by_name(lambda name, _: name, params))
    for beginning in beginnings:
        if not any(name.startswith(beginning) for name in names):
            tops = dict.fromkeys(name.partition("/")[0] for name in names)
            raise InputError(
                f"{field} has {beginning!r}, but no parameter's name begins so, only with "
                f"{', '.join(tops)}.{did_you_mean(beginning, tops)}"
            )


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
