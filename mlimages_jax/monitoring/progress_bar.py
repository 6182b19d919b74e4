# SPDX-License-Identifier: BSD-3-Clause
"""The line that says how far a long job is: rate, time left and counts."""

import sys
from typing import Any

from tqdm import tqdm


def progress(total: int | None, *, what: str, unit: str = " images", done: int = 0) -> tqdm:
    """A bar on standard error: every half second on a terminal, every 10 s in a log.

    Args:
        total: how many there are; None if nobody knows, then there is no time left.
        what: is being done.
        unit: of the rate.
        done: by an earlier run.
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
