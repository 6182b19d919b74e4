# SPDX-License-Identifier: BSD-3-Clause
"""The progress bar of a training on a terminal: steps, loss, images per second, time left."""

import sys
from typing import Any

from absl import logging
from jax import Array
from tqdm import tqdm

from mlimages_jax.monitoring.progress_bar import progress


class StepBar:
    """A bar below the log lines of process 0; nothing if standard error is not a terminal.

    Args:
        total_steps: Number of updates of the training.
        done: Updates done before.
        active: Whether this process draws it.
    """

    def __init__(self, *, total_steps: int, done: int, active: bool):
        self._bar: tqdm | None = None
        if active and sys.stderr.isatty():
            self._bar = progress(total_steps, what="training", unit=" steps", done=done)
            # A log line would otherwise be appended to the bar; the next update redraws it.
            logging.get_absl_handler().addFilter(self._make_room)

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

    def close(self) -> None:
        """Leaves the bar as it is, and log lines alone."""
        if self._bar is not None:
            logging.get_absl_handler().removeFilter(self._make_room)
            self._bar.close()
            self._bar = None

    def _make_room(self, record: Any) -> bool:
        if self._bar is not None:
            self._bar.clear()
        return True
