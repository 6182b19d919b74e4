# SPDX-License-Identifier: BSD-3-Clause
"""Errors that nobody foresaw: each is the row of its item, and only many of them end a job."""

import traceback
from pathlib import Path

from mlimages_jax.files.escaping import one_line
from mlimages_jax.prepare import PrepareError

INTERNAL = "internal"  # the error of such a row
_IN_A_ROW = 100
_IN_ALL = 1000


class InternalErrors:
    """Counts them; for one thread.

    Args:
        advice: what to do when a job has ended because of them.
    """

    def __init__(self, *, advice: str):
        self._advice = advice
        self._in_a_row = self._in_all = 0

    def passed(self) -> None:
        """An item has come to an end that was foreseen."""
        self._in_a_row = 0

    def add(self, name: str, message: str) -> None:
        """Counts one.

        Raises:
            PrepareError: something is wrong with this program, not with single items.
        """
        self._in_a_row += 1
        self._in_all += 1
        if self._in_a_row >= _IN_A_ROW or self._in_all >= _IN_ALL:
            raise PrepareError(
                f"{self._in_all:,} images ended with an internal error, {self._in_a_row:,} of them "
                f"in a row, the last one {one_line(name)}: {one_line(message)}. What is finished "
                f"is recorded. This should be reported as a fault of this program; {self._advice}"
            )


def describe(error: Exception) -> str:
    """What an error says, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{place}"
