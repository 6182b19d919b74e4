# SPDX-License-Identifier: BSD-3-Clause
"""The progress bar of a training on a terminal: steps, loss, images per second, time left."""

import sys
import threading
import time
from types import TracebackType
from typing import Any

from absl import logging
from jax import Array
from tqdm import tqdm

from mlimages_jax.monitoring.goodput import Goodput
from mlimages_jax.monitoring.progress_bar import progress

_EVERY = 1.0  # seconds
# What is shown while a category of the run's clock counts.
_SHOWN = {
    "startup": "starting", "restore": "preparing", "compile": "compiling", "step": "training",
    "evaluation": "evaluating", "save": "saving",
}  # fmt: skip


class StepBar:
    """A bar below the log lines of process 0; nothing if standard error is not a terminal.

    A thread redraws it every second, so that it moves while something compiles or is evaluated.

    Args:
        total_steps: Number of updates of the training.
        goodput: Clock of the run, which knows what it is doing.
        active: Whether this process draws it.
    """

    def __init__(self, *, total_steps: int, goodput: Goodput, active: bool):
        self._total_steps = total_steps
        self._goodput = goodput
        self._active = active
        self._bar: tqdm | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._redraw_until_it_ends, daemon=True)

    def __enter__(self) -> "StepBar":
        if self._active and sys.stderr.isatty():
            what = _SHOWN[self._goodput.category]
            self._bar = progress(self._total_steps, what=what, unit=" steps")
            # A log line would otherwise be appended to the bar; the next redraw brings it back.
            logging.get_absl_handler().addFilter(self._make_room)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leaves the bar with its last step, and log lines alone."""
        if self._bar is not None:
            self._ended.set()
            self._thread.join()
            logging.get_absl_handler().removeFilter(self._make_room)
            # Not by the clock, which has left all phases by now.
            self._bar.set_description("done" if kind is None else "stopped", refresh=False)
            self._bar.close()
            self._bar = None

    def resume(self, step: int) -> None:
        """Begins at the updates that were done before this run."""
        if self._bar is not None:
            # Else the next rate would count these updates as done in a moment.
            self._bar.n = self._bar.initial = self._bar.last_print_n = step

    def update(self, *, loss: Array | None, batch_size: int) -> None:
        """Counts a step.

        Args:
            loss: Loss of the latest step that is finished; None if none is. It is read only if
                there is a bar.
            batch_size: Images of the step.
        """
        if self._bar is None:
            return
        rate = self._bar.format_dict["rate"]
        shown: dict[str, Any] = {"images/s": f"{rate * batch_size:.0f}"} if rate else {}
        if loss is not None:
            shown["loss"] = f"{float(loss):.4f}"
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()

    def _redraw_until_it_ends(self) -> None:
        while not self._ended.wait(_EVERY):
            if self._bar is not None:
                self._redraw(self._bar)

    def _redraw(self, bar: tqdm) -> None:
        category = self._goodput.category
        if category != "step":
            # The rate, from which the time left follows, is that of steps alone.
            bar.last_print_n, bar.last_print_t = bar.n, time.time()
        bar.set_description(_SHOWN[category], refresh=False)
        bar.refresh()

    def _make_room(self, record: Any) -> bool:
        if self._bar is not None:
            self._bar.clear()
        return True
