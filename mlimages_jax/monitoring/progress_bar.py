# SPDX-License-Identifier: BSD-3-Clause
"""A progress bar with rate, time left and counts for long jobs."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm


def progress(total: int | None, *, what: str, unit: str = " images", done: int = 0) -> tqdm:
    """Returns a progress bar on standard error, updated every 0.5 s, or in a log every 10 s.

    Args:
        total: Number of items; None if unknown, in which case no time left is shown.
        what: Description of the job.
        unit: Unit of the rate.
        done: Number of items done by an earlier run.
    """
    interval = 0.5 if sys.stderr.isatty() else 10
    options: dict[str, Any] = {"mininterval": interval, "maxinterval": interval}
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        initial=done,
        dynamic_ncols=True,
        smoothing=0.05,
        **options,
    )


@contextlib.contextmanager
def hidden() -> Iterator[tqdm]:
    """Yields a progress bar that nobody sees, for workers, whose driver has one."""
    with Path(os.devnull).open("w") as nowhere, tqdm(file=nowhere, mininterval=60) as bar:
        yield bar
