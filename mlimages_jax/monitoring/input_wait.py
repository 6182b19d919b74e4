# SPDX-License-Identifier: BSD-3-Clause
"""How long the devices had nothing to do because a batch was late.

The time for which the host waits for a batch says little: it gives steps to the devices ahead of
their turn, and while they are busy its waiting costs nothing. What counts is the part of a wait
after the end of the last step that was given to them.
"""

import queue
import threading
import time
from collections.abc import Iterator
from typing import Generic, TypeVar

from jax import Array

Batch = TypeVar("Batch")


class _Step:
    """A step given to the devices, and when it ended; None while it is under way."""

    def __init__(self, result: Array | None):
        self.result = result
        self.ended: float | None = None


class InputWait(Generic[Batch]):
    """Takes batches and counts. A thread of its own sees the steps end, until `close`.

    Attributes:
        seconds: of idle devices so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._last = _Step(None)
        self._last.ended = time.perf_counter()
        self._steps: queue.SimpleQueue[_Step | None] = queue.SimpleQueue()
        threading.Thread(target=self._watch, daemon=True, name="input wait").start()

    def next(self, batches: Iterator[Batch]) -> Batch:
        """The next batch; raises what the iterator raises."""
        start = time.perf_counter()
        batch = next(batches)
        end, idle_since = time.perf_counter(), self._last.ended
        if idle_since is not None:
            self.seconds += max(0.0, end - max(start, idle_since))
        return batch

    def dispatched(self, result: Array) -> None:
        """Notes that a step was given to the devices.

        Args:
            result: one of its results, which is there when the step ends; not to be donated.
        """
        self._last = _Step(result)
        self._steps.put(self._last)

    def close(self) -> None:
        """Ends the thread after the steps under way."""
        self._steps.put(None)

    def _watch(self) -> None:
        while (step := self._steps.get()) is not None:
            assert step.result is not None
            try:
                step.result.block_until_ready()
            except Exception:  # the training meets the same error
                return
            step.result = None
            step.ended = time.perf_counter()
