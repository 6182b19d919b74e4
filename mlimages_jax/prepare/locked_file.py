# SPDX-License-Identifier: BSD-3-Clause
"""Waiting for another program, such as a viewer, that has locked an SQLite file for a while."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

LOCKED_SECONDS = 60.0  # that another program may take
_TELL_AFTER = 1.0  # seconds
_AGAIN_AFTER = 0.05  # seconds
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_Result = TypeVar("_Result")


class LockedFileError(Exception):
    """It took too long; the message says what to do."""


def patiently(action: Callable[[], _Result], path: Path, *, seconds: float) -> _Result:
    """Does something, and again while the file is locked; says so when that takes longer.

    Args:
        action: on a connection that does not wait itself; Ctrl-C would not end that.
        path: of the file.
        seconds: to wait.

    Raises:
        LockedFileError: it was locked all the time.
    """
    start, told = time.monotonic(), False
    while True:
        try:
            return action()
        except sqlite3.OperationalError as error:
            if not is_busy(error):
                raise
            waited = time.monotonic() - start
            if waited >= seconds:
                raise LockedFileError(locked_too_long(path)) from error
        if waited >= _TELL_AFTER and not told:
            told = True
            tell(path)
        time.sleep(_AGAIN_AFTER)


def is_busy(error: sqlite3.OperationalError) -> bool:
    """Whether an error says that the file is locked."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY  # without what SQLite adds


def tell(path: Path) -> None:
    """Says who waits for what, past the progress bar."""
    tqdm.write(f"{path}: another program has locked it; waiting up to {LOCKED_SECONDS:.0f} s")


def locked_too_long(path: Path) -> str:
    """Says what to do when that was in vain."""
    return (
        f"{path}: another program keeps it locked. Close it (a viewer of SQLite files?), and start "
        "the same command again: it goes on where it ended"
    )
