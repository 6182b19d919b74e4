# SPDX-License-Identifier: BSD-3-Clause
"""Traces a few steps of a training, for the profiler of TensorBoard (xprof) or Perfetto."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import jax
from absl import logging
from etils import epath

from mlimages_jax.files.remote import is_remote


class ProfileWindow:
    """Traces some steps of a run; every process traces its own devices.

    A run that resumes within the window traces what is left of it, and one that resumes after it
    nothing.

    Args:
        folder: Folder of the trace, created when it begins; it may be in a bucket.
        steps: First and last step, counted from 1; empty: nothing is traced.
    """

    def __init__(self, folder: epath.Path, steps: tuple[int, ...]):
        self._folder = folder
        self._steps = range(steps[0], steps[1] + 1) if steps else range(0)
        self._tracing: str | None = None  # the folder that is written to

    def before(self, step: int) -> None:
        """Begins the trace if the step is in the window and no trace is running."""
        if step in self._steps and self._tracing is None:
            # The profiler writes to local folders only.
            local = not is_remote(self._folder)
            self._tracing = str(self._folder) if local else tempfile.mkdtemp()
            jax.profiler.start_trace(self._tracing)

    def after(self, step: int, results: Any) -> None:
        """Ends the trace if this was its last step.

        Args:
            step: Updates done.
            results: Arrays of the step, which are waited for: it runs on the devices while the
                host is further on.
        """
        if self._tracing is not None and step >= self._steps[-1]:
            jax.block_until_ready(results)
            self.close()

    def close(self) -> None:
        """Ends a trace that has begun, also one whose run stopped within it."""
        if self._tracing is None:
            return
        jax.profiler.stop_trace()
        written, self._tracing = Path(self._tracing), None
        if is_remote(self._folder):
            for path in filter(Path.is_file, written.rglob("*")):
                target = self._folder / path.relative_to(written).as_posix()
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(path.read_bytes())
            shutil.rmtree(written)
        logging.info(
            "traced steps %d to %d: tensorboard --logdir=%s (pip install xprof)",
            self._steps[0], self._steps[-1], self._folder,
        )  # fmt: skip
