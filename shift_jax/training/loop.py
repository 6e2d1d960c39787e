"""The one training loop: steps, reports, checkpoints, evaluations, stopping and resuming.

`shift_jax.training.train` runs it on batches from the data pipeline, `shift_jax.training.on_device`
on whole epochs of arrays that lie on the device.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

import jax

from shift_jax.errors import InputError
from shift_jax.training.log import Log, MetricsBuffer, not_finite
from shift_jax.training.processes.stopping import EvaluationStoppedError, StoppedError, StopRequest
from shift_jax.training.runs.run import Run, restore_together
from shift_jax.training.step import TrainState
from shift_jax.training.steps import Piece, Steps

# Largest share of the time that goes into checkpoints of runs that are saved by the clock.
_SAVING_SHARE = 0.1


class DivergedError(InputError):
    """The loss or the gradient is no longer finite.

    Attributes:
      seeds: indices of the seeds that diverged. The others are saved.
    """

    def __init__(self, sentence: str, seeds: Collection[int]):
        super().__init__(sentence)
        self.seeds = frozenset(seeds)


class Loop:
    """Trains one run, or several seeds side by side, to the last step.

    Args:
      steps: what to train.
      runs: the run of each seed, entered and locked against other processes.
      open_log: returns the log, given the step from which training continues and whether the
        evaluation at that step is repeated.
      save_every_seconds: None saves at every evaluation. A number suits evaluations that follow
        each other within seconds: it saves when that many seconds have passed, and at evaluations
        as long as saving takes little of the time.
      stop: a request to stop, entered.
      should_stop: called before each piece and each evaluation, with the number of steps taken and
        the seconds that the last one of its kind took, 0 for the first. True saves and stops.
    """

    def __init__(
        self,
        steps: Steps,
        runs: Sequence[Run],
        open_log: Callable[[int, bool], Log],
        *,
        save_every_seconds: float | None = None,
        stop: StopRequest | None = None,
        should_stop: Callable[[int, float], bool] = lambda step, seconds: False,
    ):
        self._steps, self._runs, self._open_log = steps, runs, open_log
        self._save_every_seconds = save_every_seconds
        self._stop, self._should_stop = stop or StopRequest(), should_stop
        # Wall time on a CPU would include the time of other processes.
        on_cpu = jax.devices()[0].platform == "cpu"
        self._clock = time.process_time if on_cpu else time.perf_counter
        self._timed_at, self._saved_at = self._clock(), time.perf_counter()
        self._saving_seconds = 0.0
        # Seconds that the last piece of each kind, and the last evaluation, took.
        self._lasted: dict[object, float] = {}

    def run(self) -> list[dict[str, float]]:
        """Trains from the newest checkpoint, if there is one; returns the final metrics.

        Raises:
          InputError: checkpoints of something else.
          DivergedError: a loss or gradient that is not finite; names the last good checkpoint.
          StoppedError: a signal or `should_stop`, after saving.
        """
        restored = restore_together(self._runs, self._steps.template)
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
            return metrics if step == total else self._train(step, state)
        finally:
            self._log.close()

    def _train(self, step: int, state: TrainState) -> list[dict[str, float]]:
        steps, log_every_steps = self._steps, self._steps.config.log_every_steps
        evaluated: list[dict[str, float]] = []
        with steps.open(step):
            while step < steps.total_steps:
                piece = steps.piece(step)
                self._stop_if_asked(step, state, piece)
                steps.compile(state, step, piece)
                began = time.perf_counter()
                state, metrics = steps.take(state, step, piece)
                self._buffer.push(step, metrics)
                step += piece.count
                self._lasted[piece] = time.perf_counter() - began
                self._log.took(step, piece, self._lasted[piece])
                self._give_up_diverged(step, state, self._buffer.diverged)
                evaluating = self._is_evaluated(step)
                saving = self._is_saved(step, evaluating)
                if saving or evaluating or step % log_every_steps == 0:
                    self._report(step)
                    self._give_up_diverged(step, state, self._buffer.diverged)
                if saving:  # An evaluation, which may be long, comes after.
                    self._save(step, state)
                if evaluating:
                    self._stop_if_asked(step, state, "evaluation")
                    evaluated = self._evaluate(step, state)
        return evaluated

    def _is_evaluated(self, step: int) -> bool:
        every = self._steps.eval_every_steps
        return step == self._steps.total_steps or (step > 0 and step % every == 0)

    def _is_saved(self, step: int, evaluating: bool) -> bool:
        every = self._steps.config.checkpoint_every_steps
        if every and step % every == 0:
            return True
        if self._save_every_seconds is None or step == self._steps.total_steps:
            return evaluating
        passed = time.perf_counter() - self._saved_at
        takes_little = self._saving_seconds <= _SAVING_SHARE * passed
        return passed > self._save_every_seconds or (evaluating and takes_little)

    def _stop_if_asked(self, step: int, state: TrainState, work: Piece | str) -> None:
        if not (self._stop.is_agreed or self._should_stop(step, self._lasted.get(work, 0.0))):
            return
        if step > self._saved_step:
            self._report(step)
            self._give_up_diverged(step, state, self._buffer.diverged)
            self._save(step, state)
        for run in self._runs:
            run.checkpoints.wait()
        raise StoppedError(step, self._stop.signal)

    def _report(self, step: int) -> None:
        if step > self._reported_step:
            learning_rate = float(self._steps.learning_rate(step - 1))
            self._log.report(step, self._buffer.means(), learning_rate)
            self._reported_step = step

    def _save(self, step: int, state: TrainState, but: Collection[int] = ()) -> None:
        began = time.perf_counter()
        self._share_time()
        for index, of_seed in enumerate(self._steps.split(state)):
            if index not in but:
                self._runs[index].save(step, of_seed)
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
        """Evaluates, and adds the metrics to the checkpoint of this step, if there is one.

        A run that ends before evaluates again when it resumes.
        """
        began = time.perf_counter()
        try:
            metrics = self._steps.evaluate(state, step)
        except EvaluationStoppedError:
            raise StoppedError(step, self._stop.signal) from None
        ended = time.perf_counter()
        self._lasted["evaluation"] = ended - began
        split = self._steps.task.eval_split
        diverged = {} if again else not_finite(metrics, f"of {split} after step {step}")
        if len(diverged) < len(self._runs):
            self._log.evaluation(step, metrics, ended - began, again=again)
        if step == self._saved_step and not again:
            self._share_time()
            for index, run in enumerate(self._runs):
                if index in diverged:
                    run.checkpoints.delete(step)
                else:
                    run.complete(step, metrics[index])
            self._saving_seconds += time.perf_counter() - ended
        self._give_up_diverged(step, state, diverged)
        return metrics

    def _give_up_diverged(self, step: int, state: TrainState, diverged: Mapping[int, str]) -> None:
        """Saves the seeds that have not diverged, and raises; does nothing if all are well."""
        if not diverged:
            return
        if step > self._saved_step and len(diverged) < len(self._runs):
            self._report(step)  # More may have diverged since.
            diverged = {**self._buffer.diverged, **diverged}
            if len(diverged) < len(self._runs):
                self._save(step, state, but=diverged)
        index, sentence = next(iter(diverged.items()))
        run = self._runs[index]
        last = run.checkpoints.latest_step
        kept = "no checkpoint was saved before"
        if last is not None:
            kept = f"the last good checkpoint is {run.workdir / 'checkpoints' / str(last)}"
        raise DivergedError(
            f"{sentence}: training stopped, {kept}; lower schedule.learning_rate or set "
            "optimizer.clip_norm, in a new workdir.",
            diverged,
        )
