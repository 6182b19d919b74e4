# SPDX-License-Identifier: BSD-3-Clause
"""Decides which checkpoint of a run is the best, and whether it ends early, by `checkpoint.best`.

Both follow from the recorded evaluations up to the current step, and evaluations are of saved
weights. So a restart, on any devices, decides as the uninterrupted run does.
"""

from collections.abc import Mapping

from absl import logging

from mlimages_jax.checkpoints import best_record
from mlimages_jax.checkpoints.best_record import BestRecord
from mlimages_jax.checkpoints.manager import Checkpoints
from mlimages_jax.distributed import collectives
from mlimages_jax.settings import Train
from mlimages_jax.settings.metric_names import raw_and_ema


class BestCheckpoint:
    """Records the evaluations of a run; does nothing if `checkpoint.best` is empty.

    Args:
        config: Settings of the run.
        checkpoints: Checkpoints of the run.
        start: Updates done when the run starts or resumes. Evaluations of later steps, from before
            the restart, are forgotten: they will be repeated.
    """

    def __init__(self, config: Train, checkpoints: Checkpoints, *, start: int):
        self._config = config
        self._metric = config.checkpoint.best
        self._checkpoints = checkpoints
        checkpoints.forget_evaluations_after(start)
        before = checkpoints.evaluations
        if before and before.metric != self._metric and before.best():
            self._tell_of_another(before.metric, has_ended=start >= config.total_steps)
        raw, ema = raw_and_ema(self._metric)
        if config.optimizer.ema_decay and self._metric == raw:
            logging.warning(
                "checkpoint.best=%s is a metric of the raw weights, but models are used with the "
                "EMA weights: %s is a metric of those", raw, ema,
            )  # fmt: skip

    def _tell_of_another(self, metric: str, *, has_ended: bool) -> None:
        """Warns that a best checkpoint was chosen by another metric, which may stay in force."""
        # Not forgotten where nothing could take its place: that checkpoint would be lost.
        if not self._metric:
            logging.warning(
                "checkpoint.best is empty, but so far the best checkpoint was chosen by %s: it is "
                "kept and used, not the latest, until %s beside the checkpoints is deleted",
                metric, best_record.FILE,
            )  # fmt: skip
        elif has_ended:
            logging.warning(
                "the best checkpoint stays the one chosen by %s: all steps are done, and %s would "
                "know the last one only", metric, self._metric,
            )  # fmt: skip
            self._metric = ""
        else:
            logging.warning(
                "so far the best checkpoint was chosen by %s; from now on it is chosen by %s",
                metric, self._metric,
            )  # fmt: skip

    def needs_save(self, step: int) -> bool:
        """Returns whether a step must be saved because its evaluation will be compared."""
        return bool(self._metric and self._is_evaluated(step))

    def is_missing(self, step: int) -> bool:
        """Returns whether a run that resumes from a step must first evaluate it.

        A kill or a stop request during an evaluation leaves the step without a value.
        """
        before_end = 0 < step < self._config.total_steps
        return before_end and self.needs_save(step) and not self._knows(step)

    def record(self, step: int, values: Mapping[str, float]) -> None:
        """Records the evaluation of a saved step; the first value of a step counts.

        On other devices a repeated evaluation could differ in the last bit, and a run that has
        ended early would continue.

        Args:
            step: Updates done; step 0 is not compared, because it is not saved.
            values: All metrics by the names under which they are logged.
        """
        if self._metric and step and not self._knows(step):
            # One number for all processes, which must agree on what to keep and when to stop.
            value = collectives.of_process_0(float(values[self._metric]))
            self._checkpoints.record(self._metric, step, value)

    def ends_early(self, step: int) -> bool:
        """Returns whether the run ends before its last step, and logs why."""
        patience, since = self._config.early_stopping.patience, self._record.since_best()
        # At its last step a run ends anyway, so nothing needs to be said.
        if not patience or since < patience or step >= self._config.total_steps:
            return False
        best = self._record.best()
        logging.info(
            "finished early, after %d of %d steps: %d evaluations %s did not improve %s "
            "(early_stopping.patience=%d)",
            step, self._config.total_steps, since,
            f"since step {best.step} ({best.value:.4f})" if best else "without a value",
            self._metric, patience,
        )  # fmt: skip
        return True

    def finish(self) -> None:
        """Logs which checkpoint is the best, and deletes a former best one."""
        if not self._metric:
            return
        self._checkpoints.delete_unkept()
        if best := self._record.best(self._checkpoints.steps):
            logging.info(
                "the best checkpoint is step %d: %s %.4f", best.step, self._metric, best.value
            )

    def _is_evaluated(self, step: int) -> bool:
        every = self._config.evaluate_every  # 0: only at the end
        return bool(every and step % every == 0) or step == self._config.total_steps

    def _knows(self, step: int) -> bool:
        return any(row.step == step for row in self._record.evaluations)

    @property
    def _record(self) -> BestRecord:
        """The evaluations so far; empty if those recorded are of another metric."""
        known = self._checkpoints.evaluations
        return known if known and known.metric == self._metric else BestRecord(self._metric)
