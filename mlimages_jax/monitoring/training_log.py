# SPDX-License-Identifier: BSD-3-Clause
"""Logs a line and writes scalars for every period of training steps, without blocking them."""

import collections
import contextlib
import dataclasses
import datetime
import math
import time
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging
from jax import Array

from mlimages_jax.distributed.processes import STEPS_AHEAD
from mlimages_jax.monitoring.metrics_writer import MetricsWriter
from mlimages_jax.monitoring.step_bar import StepBar


class NonFiniteError(RuntimeError):
    """The loss or the gradient is NaN or infinite."""


@dataclasses.dataclass
class _Period:
    """The steps between two log lines: metrics, still on the device, and durations."""

    last_step: int
    metrics: list[dict[str, Array]]
    rows: int
    seconds: float
    seconds_waited: float


class Progress:
    """Collects step metrics and reports them one period late, so that no step waits for a log line.

    Args:
        writer: Writer for the scalars.
        total_steps: Number of updates of the training, for the time left.
        every: Number of steps in a period.
        bar: Bar that shows every step; None for none.
    """

    def __init__(
        self,
        writer: MetricsWriter,
        *,
        total_steps: int,
        every: int,
        bar: StepBar | None = None,
    ):
        self._writer = writer
        self._total_steps = total_steps
        self._every = every
        self._metrics: list[dict[str, Array]] = []
        self._under_way: collections.deque[Array] = collections.deque(maxlen=STEPS_AHEAD)
        self._rows = 0
        self._finished: list[_Period] = []
        self._start, self._waited_before = time.perf_counter(), 0.0
        self._bar = bar

    def add(
        self, step: int, metrics: dict[str, Array], *, batch_size: int, seconds_waited: float
    ) -> None:
        """Adds the metrics of a step without reading them; reports the previous period if due.

        Args:
            step: Updates done, including this one.
            metrics: Scalars on the device.
            batch_size: Global batch size of this step.
            seconds_waited: Time in which the devices were idle waiting for input, since the start
                of the program.

        Raises:
            NonFiniteError: A loss or gradient norm in the reported period is not finite.
        """
        # Limits how far the host runs ahead of the device, see STEPS_AHEAD.
        finished = self._under_way[0] if len(self._under_way) == STEPS_AHEAD else None
        if finished is not None:
            finished.block_until_ready()
        if self._bar is not None:
            self._bar.update(loss=finished, batch_size=batch_size)
        self._under_way.append(metrics["loss"])
        self._metrics.append(metrics)
        self._rows += batch_size
        if step % self._every and step != self._total_steps:
            return
        now = time.perf_counter()
        waited = seconds_waited - self._waited_before
        self._finished.append(_Period(step, self._metrics, self._rows, now - self._start, waited))
        self._metrics, self._rows = [], 0
        self._start, self._waited_before = now, seconds_waited
        while len(self._finished) > 1:
            self._report(self._finished.pop(0))

    def flush(self) -> None:
        """Waits for the device, reads all metrics, and reports the complete periods.

        Raises:
            NonFiniteError: A loss or gradient norm is not finite.
        """
        while self._finished:
            self._report(self._finished.pop(0))
        # The steps of the incomplete period are checked as well: a save follows.
        _check_finite(jax.device_get(self._metrics))

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Excludes the block (evaluation, saving) from the measured time.

        Waits for the running steps first, because their time must be included.
        """
        jax.block_until_ready(list(self._under_way))
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def _report(self, period: _Period) -> None:
        # A period late, so this waits for nothing, except in `flush`.
        rows = jax.device_get(period.metrics)
        _check_finite(rows)
        values = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        bad = period.rows / len(rows) - values.pop("images")
        rate = len(rows) / period.seconds
        waiting = min(period.seconds_waited / period.seconds, 1.0)
        values["learning_rate"] = float(rows[-1]["learning_rate"])
        values |= {"images_per_second": period.rows / period.seconds, "input_wait": waiting}
        values["bad_images_per_step"] = bad
        left = datetime.timedelta(seconds=round((self._total_steps - period.last_step) / rate))
        logging.info(
            "step %d/%d  loss %.4f  %.1f images/s  waiting for input %.0f%%  %s left",
            period.last_step, self._total_steps, values["loss"],
            values["images_per_second"], 100 * waiting, left,
        )  # fmt: skip
        self._writer.write(period.last_step, {f"training/{k}": v for k, v in values.items()})


def _check_finite(rows: list[dict[str, np.ndarray]]) -> None:
    for row in rows:
        if not (math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"])):
            raise NonFiniteError(
                f"loss {row['loss']}, gradient norm {row['gradient_norm']} at learning rate "
                f"{row['learning_rate']}"
            )
