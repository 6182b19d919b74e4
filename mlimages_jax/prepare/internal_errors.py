# SPDX-License-Identifier: BSD-3-Clause
"""Unexpected errors: each is recorded for its item, and only many of them stop a job."""

import traceback
from pathlib import Path

from mlimages_jax.files.escaping import one_line
from mlimages_jax.prepare import PrepareError

INTERNAL = "internal"  # the error of such a row
_IN_A_ROW = 100
_IN_ALL = 1000


class InternalErrors:
    """Counts unexpected errors; for use from one thread.

    Args:
        advice: What to do after the job has stopped because of them.
    """

    def __init__(self, *, advice: str):
        self._advice = advice
        self._in_a_row = self._in_all = 0

    def passed(self) -> None:
        """Reports an item whose outcome, good or bad, was an expected one."""
        self._in_a_row = 0

    def add(self, name: str, message: str) -> None:
        """Counts one error.

        Raises:
            PrepareError: There were so many that this program, not a single item, is at fault.
        """
        self._in_a_row += 1
        self._in_all += 1
        if self._in_a_row >= _IN_A_ROW or self._in_all >= _IN_ALL:
            raise PrepareError(
                f"{self._in_all:,} images ended with an internal error, {self._in_a_row:,} of them "
                f"in a row, the last one {one_line(name)}: {one_line(message)}. Finished work is "
                f"recorded. Please report this as a bug of this program; {self._advice}"
            )


def describe(error: Exception) -> str:
    """Returns an error's message and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
