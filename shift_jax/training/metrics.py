"""Metrics on the console, in TensorBoard and in the history of a run."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TextIO

import tqdm

from shift_jax.training.log import Log
from shift_jax.training.runs.history import History
from shift_jax.training.steps import Piece


class Console:
    """Prints a progress bar on a terminal, and a line per report elsewhere.

    Args:
      total_steps: number of steps of the run.
      start_step: step from which this process continues.
      steps_per_epoch: number of steps of an epoch.
      fractions: names of the metrics shown as percentages.
      file: file to print to, by default stderr.
    """

    def __init__(
        self,
        total_steps: int,
        start_step: int,
        steps_per_epoch: int,
        fractions: Collection[str],
        file: TextIO | None = None,
    ):
        self._total_steps = total_steps
        self._steps_per_epoch = steps_per_epoch
        self._fractions = fractions
        self._file = sys.stderr if file is None else file
        self._bar = tqdm.tqdm(
            total=total_steps,
            initial=start_step,
            file=self._file,
            disable=not self._file.isatty(),
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}% |{bar}| step {n_fmt}/{total_fmt}{desc}",
        )

    def advance(self, step: int) -> None:
        """Moves the bar to a step."""
        self._bar.update(step - self._bar.n)

    def report(self, step: int, scalars: Mapping[str, float]) -> None:
        """Shows metrics in the bar, or as a line."""
        if self._bar.disable:
            self.write_line(step, scalars)
        else:
            self._bar.set_description_str(" | ".join(["", *self._readable(scalars)]))

    def write_line(self, step: int, scalars: Mapping[str, float], prefix: str = "") -> None:
        """Prints a line that stays, with a prefix before each name."""
        position = f"step {step}/{self._total_steps} | epoch {step / self._steps_per_epoch:.1f}"
        values = (prefix + text for text in self._readable(scalars))
        self.say(" | ".join([position, *values]))

    def say(self, sentence: str) -> None:
        """Prints a sentence without breaking the bar."""
        self._bar.write(sentence, file=self._file)
        self._file.flush()

    def close(self) -> None:
        """Leaves the bar as it is."""
        self._bar.close()

    def _readable(self, scalars: Mapping[str, float]) -> Iterator[str]:
        for key, value in scalars.items():
            if key in self._fractions:
                yield f"{key} {100 * value:.2f} %"
            elif key == "images_per_second":
                yield f"{value:,.0f} images/s"
            elif key == "seconds_left":
                yield f"{format_duration(value)} left"
            elif isinstance(value, int):
                yield f"{key} {value:,}"
            elif key != "gradient_norm":  # TensorBoard and the history show it.
                yield f"{key} {value:.4g}"


class RunLog(Log):
    """Writes what happens in one run to the console, to TensorBoard and to `history.jsonl`.

    Args:
      workdir: the run's folder.
      start_step: step from which this process continues; drops later lines of the history.
      total_steps: number of steps of the run.
      steps_per_epoch: number of steps of an epoch.
      eval_split: name of the evaluation split.
      fractions: names of the metrics shown as percentages.
      tensorboard: whether to write TensorBoard event files.
      evaluate_again: whether the evaluation at `start_step` is repeated; drops its line.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        start_step: int,
        total_steps: int,
        steps_per_epoch: int,
        eval_split: str,
        fractions: Collection[str],
        tensorboard: bool,
        evaluate_again: bool = False,
    ):
        self._total_steps, self._eval_split = total_steps, eval_split
        self._pace = Pace()
        self._history = History(workdir, start_step, evaluate_again=evaluate_again)
        self._console = Console(total_steps, start_step, steps_per_epoch, fractions)
        self._tensorboard = None
        if tensorboard:
            # Imports TensorFlow, which takes seconds.
            from clu import metric_writers

            writer = metric_writers.SummaryWriter(str(workdir / "tensorboard"))
            self._tensorboard = metric_writers.AsyncWriter(writer)

    def say(self, sentence: str) -> None:
        """Prints a sentence."""
        self._console.say(sentence)

    def train_step(self, step: int, metrics: Sequence[Mapping[str, float]]) -> None:
        self._history.add(step, "train", **metrics[0])
        self._console.advance(step)

    def took(self, step: int, piece: Piece, seconds: float) -> None:
        self._pace.step(piece.images)

    def report(
        self, step: int, metrics: Sequence[Mapping[str, float]], learning_rate: float
    ) -> None:
        pace = self._pace.report(steps_left=self._total_steps - step)
        scalars = {**metrics[0], "learning_rate": learning_rate, **pace}
        self._console.report(step, scalars)
        self._write_scalars(step, "train", scalars)
        self._history.flush()

    def saved(self, step: int) -> None:
        self._pace.pause()

    def evaluation(
        self,
        step: int,
        metrics: Sequence[Mapping[str, float]],
        seconds: float,
        *,
        again: bool = False,
    ) -> None:
        self._console.write_line(step, metrics[0], prefix=f"{self._eval_split} ")
        if again:
            return
        self._write_scalars(step, self._eval_split, metrics[0])
        self._history.add(step, "eval", split=self._eval_split, **metrics[0])
        self._history.flush()

    def close(self) -> None:
        self._history.flush()
        self._console.close()
        if self._tensorboard:
            self._tensorboard.close()

    def _write_scalars(self, step: int, prefix: str, scalars: Mapping[str, float]) -> None:
        if self._tensorboard:
            named = {f"{prefix}/{key}": value for key, value in scalars.items()}
            self._tensorboard.write_scalars(step, named)


def format_duration(seconds: float) -> str:
    """Returns e.g. "45 s", "3 min 5 s", "2 h 10 min"."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


class Pace:
    """Measures the throughput of training, without compilation, evaluations and checkpoints.

    Args:
      clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter):
        self._clock = clock
        self._last: float | None = None
        self._seconds = 0.0
        self._images = 0
        self._steps = 0
        self._rates: tuple[float, float] | None = None

    def pause(self) -> None:
        """To be called after anything else than training."""
        self._last = None

    def step(self, images: int) -> None:
        """To be called after each step; does not count the first, nor the first after a pause."""
        now = self._clock()
        if self._last is not None:
            self._seconds += now - self._last
            self._images += images
            self._steps += 1
        self._last = now

    def report(self, steps_left: int) -> dict[str, float]:
        """Returns "images_per_second" since the last report and "seconds_left", if known."""
        if self._seconds:
            self._rates = self._images / self._seconds, self._steps / self._seconds
            self._seconds, self._images, self._steps = 0.0, 0, 0
        if self._rates is None:
            return {}
        images_per_second, steps_per_second = self._rates
        return {
            "images_per_second": images_per_second,
            "seconds_left": steps_left / steps_per_second,
        }
