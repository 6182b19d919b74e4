# SPDX-License-Identifier: BSD-3-Clause
"""Measures how long the devices were idle because a batch was late.

The time the host waits for a batch says little: steps are dispatched ahead of time, and waiting
costs nothing while the devices are busy. Only the part of a wait after the end of the last
dispatched step counts.
"""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

from jax import Array

Batch = TypeVar("Batch")


class _Step:
    """A dispatched step and the time when it ended; None while it is running."""

    def __init__(self, result: Array | None):
        self.result = result
        self.ended: float | None = None


class InputWait(Generic[Batch]):
    """Fetches batches and measures idle time, with a thread that waits for the end of each step.

    Attributes:
        seconds: Time in which the devices were idle so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = _Step(None)  # before the first step, the devices are idle
        self._last.ended = time.perf_counter()
        self._steps: queue.SimpleQueue[_Step | None] = queue.SimpleQueue()
        threading.Thread(target=self._watch, daemon=True, name="input wait").start()

    def next(self, batches: Iterator[Batch]) -> Batch:
        """Returns the next batch; errors of the iterator propagate."""
        start = time.perf_counter()
        batch = next(batches)
        end, idle_since = time.perf_counter(), self._last.ended
        if idle_since is not None:
            self.seconds += max(0.0, end - max(start, idle_since))
        return batch

    def dispatched(self, result: Array) -> None:
        """Records that a step was dispatched.

        Args:
            result: Any output of the step that is not donated to a later one; it becomes available
                when the step ends.
        """
        self._last = _Step(result)
        self._steps.put(self._last)

    def close(self) -> None:
        """Stops the thread after the running steps."""
        self._steps.put(None)

    def _watch(self) -> None:
        while (step := self._steps.get()) is not None:
            assert step.result is not None
            try:
                step.result.block_until_ready()
            except Exception:  # the training loop sees the same error
                return
            step.result = None  # free the device buffer
            step.ended = time.perf_counter()
