# SPDX-License-Identifier: BSD-3-Clause
"""Runs the steps of a training and measures them: log, metrics, idle devices, profile, goodput."""

from collections.abc import Callable
from types import TracebackType

import jax
from etils import epath

from mlimages_jax.data.device_batches import DeviceBatches
from mlimages_jax.monitoring.goodput import Goodput
from mlimages_jax.monitoring.input_wait import InputWait
from mlimages_jax.monitoring.metrics_writer import MetricsWriter
from mlimages_jax.monitoring.profile_window import ProfileWindow
from mlimages_jax.monitoring.step_bar import StepBar
from mlimages_jax.monitoring.trackers import Trackers
from mlimages_jax.monitoring.training_log import Progress
from mlimages_jax.settings import Train
from mlimages_jax.step import steps
from mlimages_jax.step.state import TrainState

CompiledStep = Callable[[TrainState, steps.Batch], tuple[TrainState, dict[str, jax.Array]]]


class MeasuredSteps:
    """The steps of a training; a context manager that completes the files it writes.

    Args:
        config: Settings of the training.
        workdir: Folder of the run.
        goodput: Clock of the run.
        start: Updates done when the run starts or resumes.
        trackers: As for `MetricsWriter`.
        bar: As for `Progress`.

    Attributes:
        writer: Writer for metrics.jsonl and TensorBoard events.
        progress: Log of the training.
    """

    def __init__(
        self,
        config: Train,
        workdir: epath.Path,
        goodput: Goodput,
        *,
        start: int,
        trackers: Trackers | None = None,
        bar: StepBar | None = None,
    ):
        self.writer = MetricsWriter(workdir, start_step=start, trackers=trackers)
        self.progress = Progress(
            self.writer, total_steps=config.total_steps, every=config.log_every, bar=bar
        )
        self._goodput = goodput
        self._input_wait: InputWait[dict[str, jax.Array]] = InputWait()
        self._profile = ProfileWindow(workdir / "profile", config.profile.steps)

    def __enter__(self) -> "MeasuredSteps":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._profile.close()
        self._input_wait.close()
        self.writer.close()

    def run(
        self,
        function: CompiledStep,
        state: TrainState,
        batches: DeviceBatches,
        *,
        step: int,
        batch_size: int,
    ) -> TrainState:
        """Runs a step on the next batch; returns when it is dispatched, not when it has ended.

        Args:
            function: The compiled step.
            state: State before the step, which is donated.
            batches: Batches of the current stage.
            step: Number of the step, from 1.
            batch_size: Images in a global batch.

        Returns:
            The state after the step, still being computed.

        Raises:
            NonFiniteError: A loss or gradient norm of an earlier period is not finite.
        """
        before = self._input_wait.seconds
        batch = self._input_wait.next(batches)
        self._goodput.move(self._input_wait.seconds - before, "input")
        self._profile.before(step)
        # An array of the host among the arguments would be copied to the devices in every step,
        # unnoticed but for the speed. The guard makes it an error.
        with jax.transfer_guard("disallow"):
            state, metrics = function(state, batch)
        self._profile.after(step, metrics)
        # The loss and not the state, whose buffers are donated to the next step.
        self._input_wait.dispatched(metrics["loss"])
        self.progress.add(
            step, metrics, batch_size=batch_size, seconds_waited=self._input_wait.seconds
        )
        return state
