# SPDX-License-Identifier: BSD-3-Clause
"""Writes scalars to `metrics.jsonl` and TensorBoard events, on process 0 only."""

import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import jax
from etils import epath
from tensorboardX import SummaryWriter

from mlimages_jax.files.escaping import finite
from mlimages_jax.files.remote import append_line, is_remote
from mlimages_jax.monitoring.trackers import Trackers

EVENTS_SECONDS = 120  # interval between copies of the events to object storage


class MetricsWriter:
    """Appends one JSON object per line, {"step": ..., "name": value}, and TensorBoard events.

    After a restart the steps since the last checkpoint are written again. In metrics.jsonl the last
    line of a step counts. In TensorBoard, `purge_step` discards points at that step and later, so
    it is the step after the checkpoint.

    On object storage, events are written to a local folder and copied every EVENTS_SECONDS, so a
    killed run loses the latest ones. tensorboardX could write there directly, from a thread, but
    after a single failure that thread ends and the training waits for it forever.

    Args:
        workdir: Folder of the files.
        start_step: Updates done when the training starts or resumes; None to discard no points, as
            for evaluations, whose points are written one at a time.
        trackers: Experiment trackers that get the same values; they are not closed.
    """

    def __init__(
        self, workdir: epath.PathLike, *, start_step: int | None, trackers: Trackers | None = None
    ):
        self._trackers = trackers
        self._active = jax.process_index() == 0
        if not self._active:
            return
        folder = epath.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        self._events_folder = folder / "events"
        self._local = tempfile.TemporaryDirectory() if is_remote(folder) else None
        where = self._local.name if self._local else str(self._events_folder)
        self._events = SummaryWriter(
            where,
            purge_step=None if start_step is None else start_step + 1,
            filename_suffix=_suffix(self._events_folder),
        )
        self._next_copy = time.monotonic() + EVENTS_SECONDS

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step; NaN and infinity become null, as JSON has neither."""
        if not self._active:
            return
        append_line(self._path, json.dumps(finite({"step": step, **values})))
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()  # a killed run keeps its points
        if self._trackers:
            self._trackers.write(step, values)
        if self._local and time.monotonic() >= self._next_copy:
            self._copy_events(self._local.name)

    def close(self) -> None:
        """Finishes the events file."""
        if not self._active:
            return
        self._events.close()
        if self._local:
            self._copy_events(self._local.name)
            self._local.cleanup()

    def _copy_events(self, folder: str) -> None:
        for file in Path(folder).iterdir():
            (self._events_folder / file.name).write_bytes(file.read_bytes())
        self._next_copy = time.monotonic() + EVENTS_SECONDS


def _suffix(folder: epath.Path) -> str:
    """Returns a suffix for the next event file: two files of one second would share a name.

    It is a counter because TensorBoard reads the files in the order of their names.
    """
    before = len(list(folder.iterdir())) if folder.is_dir() else 0
    return f".{before:05d}"
