"""The lines that a sweep prints while it trains."""

from __future__ import annotations

from collections.abc import Iterable

from shift_jax.paper.sweep.jobs import Job
from shift_jax.training.on_device.log import EpochReport, StepReport


def say(sentence: str) -> None:
    """Prints a line at once."""
    print(sentence, flush=True)


def steps_line(job: Job, place: str, steps: StepReport) -> str:
    """Returns how far a job has got within an epoch.

    Args:
      job: the job.
      place: its place among all jobs, such as "1 of 6".
      steps: the steps so far.
    """
    epoch, step = divmod(steps.taken, steps.per_epoch)
    where = f"epoch {epoch + 1}/{job.epochs}, step {step} of {steps.per_epoch}"
    if steps.seconds_each:
        return f"{job}: {where}, {steps.seconds_each:.2f} s each"
    begins = f"resuming from {where}" if steps.taken else "training"
    return f"{job} ({place}): {begins}, compiling first …"


def epoch_line(job: Job, report: EpochReport) -> str:
    """Returns the results of an epoch, the seeds of a job side by side."""

    def of_seeds(values: Iterable[float], digits: int) -> str:
        return " / ".join(f"{value:.{digits}f}" for value in values)

    return (
        f"{job}: epoch {report.epoch}/{job.epochs}, "
        f"loss {of_seeds((epoch.loss for epoch in report.latest), 3)}, test top-1 "
        f"{of_seeds((100 * epoch.test['top1'] for epoch in report.latest), 2)} %, "
        f"{report.images_per_second:,.0f} images/s, {report.minutes_left:.1f} min left"
    )
