# SPDX-License-Identifier: BSD-3-Clause
"""Scalars to `metrics.jsonl` and TensorBoard events; only process 0 writes."""

import json
import math
from collections.abc import Mapping

import jax
from etils import epath
from tensorboardX import SummaryWriter


class MetricsWriter:
    """Appends one JSON object a line, {"step": ..., "name": value}, and TensorBoard events.

    After a restart the steps since the last checkpoint are written again: the last line of a step
    counts, and TensorBoard is told to forget the earlier ones.
    """

    def __init__(self, workdir: epath.PathLike, *, start_step: int):
        self._active = jax.process_index() == 0
        if not self._active:
            return
        folder = epath.Path(workdir)
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        self._events = SummaryWriter(str(folder / "events"), purge_step=start_step)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the values of a step; nan and infinity become null, as JSON has neither."""
        if not self._active:
            return
        finite = {name: v if math.isfinite(v) else None for name, v in values.items()}
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **finite}) + "\n")
        for name, value in values.items():
            self._events.add_scalar(name, value, step)
        self._events.flush()

    def close(self) -> None:
        """Finishes the events file."""
        if self._active:
            self._events.close()
