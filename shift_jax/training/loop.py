"""The one training loop: steps, reports, checkpoints, evaluations, stops and resumes.

`shift_jax.training.train` runs it on batches of the data pipeline, and
`shift_jax.training.on_device` on whole epochs of arrays that lie on the device.
"""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence

import jax
import numpy as np

from shift_jax.errors import InputError
from shift_jax.training.processes.stopping import EvaluationStoppedError, StoppedError, StopRequest
from shift_jax.training.protocols import Log, Piece, Steps
from shift_jax.training.runs.run import Run, restore_together
from shift_jax.training.step import TrainState

# Pieces whose metrics may still be on their way while the next ones are dispatched.
_PIECES_IN_FLIGHT = 2
# Of runs saved by the clock: saving takes at most this share of the time between two evaluations.
_SAVING_SHARE = 0.1


class DivergedError(InputError):
    """The loss or the gradient is no longer finite.

    Attributes:
      runs: indices of the runs, of those that train side by side, whose loss or gradient it is.
        The others have their state saved.
    """

    def __init__(self, sentence: str, runs: frozenset[int]):
        super().__init__(sentence)
        self.runs = runs


class MetricsBuffer:
    """Waits for the steps' metrics a little late, so that steps are dispatched ahead.

    Attributes:
      diverged: of each run with a metric that is not finite, the first such, in words.
    """

    def __init__(self, log: Log, stop: StopRequest, runs: int):
        self._log, self._stop, self._runs = log, stop, runs
        self._coming: collections.deque = collections.deque()
        self._since_means: list[list[dict[str, float]]] = []
        self.diverged: dict[int, str] = {}

    def push(self, step: int, count: int, metrics: dict[str, jax.Array]) -> None:
        """Takes the metrics of the `count` steps that end at `step`."""
        self._coming.append((step - count, metrics))
        if len(self._coming) > _PIECES_IN_FLIGHT:
            self._wait()

    def means(self) -> list[dict[str, float]]:
        """Waits for all steps; returns each run's means over those since the last call."""
        while self._coming:
            self._wait()
        steps, self._since_means = self._since_means, []
        keys = sorted(steps[0][0], key=lambda key: (key != "loss", key))
        return [
            {key: sum(step[run][key] for step in steps) / len(steps) for key in keys}
            for run in range(self._runs)
        ]

    def _wait(self) -> None:
        step, metrics = self._coming.popleft()
        metrics = self._stop.listen(jax.device_get(metrics))
        # As Python floats: [runs][steps] of each metric.
        values = {k: np.reshape(v, (self._runs, -1)).tolist() for k, v in metrics.items()}
        for index in range(len(values["loss"][0])):
            step += 1
            of_runs = [{k: v[run][index] for k, v in values.items()} for run in range(self._runs)]
            self._log.train_step(step, of_runs)
            self._since_means.append(of_runs)
            self.diverged = _not_finite(of_runs, f"at step {step}") | self.diverged


class Loop:
    """Trains one run, or several side by side, to their last step.

    Args:
      steps: what is trained.
      runs: the folders of the runs, entered, which no other process has.
      open_log: returns whom to tell, given the step that the runs go on from, and whether the
        evaluation of that step comes again.
      log_every_steps: steps between two reports.
      checkpoint_every_steps: steps between two checkpoints; 0 for none but the others.
      checkpoint_every_seconds: None saves at every evaluation. Else, for evaluations that may
        follow each other in seconds, a checkpoint is saved when so much time has passed since the
        last one, at evaluations as often as costs little, and at the last step.
      stop: entered, where signals are to stop the runs.
      should_stop: called before each piece and each evaluation with the number of steps taken and
        the seconds that the like of it took the last time, 0 the first time; True saves and stops.
    """

    def __init__(
        self,
        steps: Steps,
        runs: Sequence[Run],
        open_log: Callable[[int, bool], Log],
        *,
        log_every_steps: int,
        checkpoint_every_steps: int,
        checkpoint_every_seconds: float | None = None,
        stop: StopRequest | None = None,
        should_stop: Callable[[int, float], bool] = lambda step, seconds: False,
    ):
        self._steps, self._runs, self._open_log = steps, runs, open_log
        self._log_every, self._save_every = log_every_steps, checkpoint_every_steps
        self._save_every_seconds = checkpoint_every_seconds
        self._stop, self._should_stop = stop or StopRequest(), should_stop
        # On a CPU other processes take wall time away, which is not this run's.
        on_cpu = jax.devices()[0].platform == "cpu"
        self._clock = time.process_time if on_cpu else time.perf_counter
        self._timed_at = self._clock()
        self._saved_at = time.perf_counter()
        self._saving_seconds = 0.0
        # Seconds that a piece of each kind, and the evaluation, took when it last came.
        self._lasted: dict[object, float] = {}

    def run(self) -> list[dict[str, float]]:
        """Trains from the newest checkpoint, if there is one; returns the last metrics evaluated.

        Raises:
          InputError: checkpoints that are of something else.
          DivergedError: a loss or gradient that is not finite; names the last good checkpoint.
          StoppedError: a signal or `should_stop`, after saving.
        """
        restored = restore_together(self._runs, self._steps.template())
        if restored is None:
            state, step = self._steps.begin(), 0
        else:
            state, step = self._steps.join(restored[0]), restored[1]
        total = self._steps.total_steps
        if step > total:
            raise InputError(
                f"{self._runs[0].workdir} is trained to step {step}, beyond this run's {total} "
                "steps: its dataset was larger; choose another --workdir."
            )
        self._saved_step = self._reported_step = step
        evaluating = self._is_evaluated(step) and not all(
            run.checkpoints.has_metrics(step) for run in self._runs
        )
        self._log = self._open_log(step, evaluating)
        self._buffer = MetricsBuffer(self._log, self._stop, len(self._runs))
        try:
            if evaluating:
                self._stop_if_asked(step, state, "evaluation")
                metrics = self._evaluate(step, state)
            elif step == total:
                metrics = self._evaluate(step, state, again=True)
            return metrics if step == total else self._to_the_end(state, step)
        finally:
            self._log.close()

    def _to_the_end(self, state: TrainState, step: int) -> list[dict[str, float]]:
        steps = self._steps
        with steps.open(step):
            while step < steps.total_steps:
                piece = steps.piece(step)
                self._stop_if_asked(step, state, piece)
                steps.compile(state, step, piece)
                began = time.perf_counter()
                state, metrics = steps.take(state, step, piece)
                step += piece.count
                self._buffer.push(step, piece.count, metrics)
                self._lasted[piece] = time.perf_counter() - began
                self._log.took(step, piece, self._lasted[piece])
                self._give_up_if_diverged(step, state, self._buffer.diverged)
                evaluating = self._is_evaluated(step)
                saving = self._is_saved(step, evaluating)
                if saving or evaluating or step % self._log_every == 0:
                    self._report(step, state)
                if saving:
                    # Before the evaluation, which may be long: nothing shall be lost by it.
                    self._save(step, state)
                if evaluating:
                    self._stop_if_asked(step, state, "evaluation")
                    metrics = self._evaluate(step, state)
        return metrics

    def _is_evaluated(self, step: int) -> bool:
        every = self._steps.eval_every_steps
        return step == self._steps.total_steps or (step > 0 and step % every == 0)

    def _is_saved(self, step: int, evaluating: bool) -> bool:
        if self._save_every and step % self._save_every == 0:
            return True
        if self._save_every_seconds is None or step == self._steps.total_steps:
            return evaluating
        passed = time.perf_counter() - self._saved_at
        costs_little = self._saving_seconds <= _SAVING_SHARE * passed
        return passed > self._save_every_seconds or (evaluating and costs_little)

    def _stop_if_asked(self, step: int, state: TrainState, work: Piece | str) -> None:
        if not (self._stop.is_agreed or self._should_stop(step, self._lasted.get(work, 0.0))):
            return
        if step > self._saved_step:
            self._report(step, state)
            self._save(step, state)
        for run in self._runs:
            run.checkpoints.wait()
        raise StoppedError(step, self._stop.signal)

    def _report(self, step: int, state: TrainState) -> None:
        self._report_means(step)
        self._give_up_if_diverged(step, state, self._buffer.diverged)

    def _report_means(self, step: int) -> None:
        if step > self._reported_step:
            self._log.report(step, self._buffer.means(), self._steps.learning_rate(step - 1))
            self._reported_step = step

    def _save(self, step: int, state: TrainState, but: Collection[int] = ()) -> None:
        began = time.perf_counter()
        self._share_time()
        for index, own in enumerate(self._steps.split(state)):
            if index not in but:
                self._runs[index].save(step, own)
        self._saved_step, self._saved_at = step, time.perf_counter()
        self._saving_seconds = self._saved_at - began
        self._log.saved(step)

    def _share_time(self) -> None:
        now = self._clock()
        for run in self._runs:
            run.seconds += (now - self._timed_at) / len(self._runs)
        self._timed_at = now

    def _evaluate(
        self, step: int, state: TrainState, *, again: bool = False
    ) -> list[dict[str, float]]:
        """Evaluates, and completes the checkpoint of `step`, if there is one, by the metrics.

        A run that is stopped or killed before that evaluates again when it resumes.
        """
        began = time.perf_counter()
        try:
            metrics = self._steps.evaluate(state, step)
        except EvaluationStoppedError:
            raise StoppedError(step, self._stop.signal) from None
        ended = time.perf_counter()
        self._lasted["evaluation"] = ended - began
        where = f"of {self._steps.eval_split} after step {step}"
        diverged = {} if again else _not_finite(metrics, where)
        for index in diverged:
            if self._saved_step == step:
                self._runs[index].checkpoints.delete(step)
        if len(diverged) < len(self._runs):
            self._log.evaluation(step, metrics, ended - began, again=again)
        if self._saved_step == step and not again:
            self._share_time()
            began = time.perf_counter()
            for index, of_run in enumerate(metrics):
                if index not in diverged:
                    self._runs[index].complete(step, of_run)
            self._saving_seconds += time.perf_counter() - began
        self._give_up_if_diverged(step, state, diverged)
        return metrics

    def _give_up_if_diverged(
        self, step: int, state: TrainState, diverged: Mapping[int, str]
    ) -> None:
        """Ends the loop where a run has diverged, with the state of the others saved."""
        if not diverged:
            return
        if step > self._saved_step:
            self._report_means(step)
            diverged = {**self._buffer.diverged, **diverged}
            if len(diverged) < len(self._runs):
                self._save(step, state, but=diverged)
        index, sentence = next(iter(diverged.items()))
        last = self._runs[index].checkpoints.latest_step
        kept = "no checkpoint was saved before"
        if last is not None:
            folder = self._runs[index].workdir / "checkpoints" / str(last)
            kept = f"the last good checkpoint is {folder}"
        raise DivergedError(
            f"{sentence}: training stopped, {kept}; lower schedule.learning_rate or set "
            "optimizer.clip_norm, in a new workdir.",
            frozenset(diverged),
        )


def _not_finite(metrics: Sequence[Mapping[str, float]], where: str) -> dict[int, str]:
    """Returns what is not finite, of each run that has something not finite."""
    return {
        index: f"The {key.replace('_', ' ')} {where} is {value}"
        for index, of_run in enumerate(metrics)
        for key, value in reversed(of_run.items())
        if not math.isfinite(value)
    }
