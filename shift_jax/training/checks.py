"""Checks that the batches of a task fit the devices."""

from __future__ import annotations

from jax.sharding import Mesh

from shift_jax.errors import InputError
from shift_jax.tasks import Task


def check_batches(task: Task, mesh: Mesh, accumulation_steps: int) -> None:
    """Raises InputError if a training batch does not divide evenly over the mesh."""
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
