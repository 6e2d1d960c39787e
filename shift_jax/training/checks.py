"""What can be told to be wrong before a run begins."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from jax.sharding import Mesh

from shift_jax.errors import InputError, positive_int
from shift_jax.tasks import Task

if TYPE_CHECKING:
    from ml_collections import ConfigDict


def check_numbers(config: ConfigDict) -> None:
    """Raises InputError for a number of the experiment's config that is out of range."""
    for field in (
        *("batch_size", "eval_batch_size", "log_every_steps", "keep_latest"),
        "accumulation_steps",
    ):
        positive_int(field, config[field])
    if config.checkpoint_every_steps < 0:
        raise InputError(
            f"checkpoint_every_steps is {config.checkpoint_every_steps}, expected a number of "
            "steps, or 0 for checkpoints at evaluations only."
        )
    if not 0 <= config.ema_decay < 1:
        raise InputError(
            f"ema_decay is {config.ema_decay}, expected a fraction such as 0.9999, or 0 for no "
            "average."
        )
    for field in ("epochs", "eval_every_epochs"):
        if not 0 < config[field] < math.inf:
            raise InputError(f"{field} is {config[field]}, expected a number above 0.")
    if not 0 <= config.seed < 2**32:
        raise InputError(f"seed is {config.seed}, expected an integer from 0 to 2**32 - 1.")


def check_batches(task: Task, mesh: Mesh, accumulation_steps: int) -> None:
    """Raises InputError when a training batch cannot be split evenly over the mesh."""
    parts = mesh.size * accumulation_steps
    over = f"{mesh.size} devices"
    if accumulation_steps > 1:
        over += f" and {accumulation_steps} accumulation_steps"
    for size in task.batch_sizes:
        if size % parts:
            is_whole = size == max(task.batch_sizes)
            what = "The training batch" if is_whole else "The last training batch of an epoch"
            advice = f"set batch_size to a multiple of {parts}"
            if not is_whole:
                advice = "set data.drop_remainder=True or another batch_size"
            raise InputError(
                f"{what} has {size} examples, which do not divide evenly over {over}: {advice}."
            )
