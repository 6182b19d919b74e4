# SPDX-License-Identifier: BSD-3-Clause
"""Waits while another program, such as a viewer, keeps an SQLite file locked."""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

LOCKED_SECONDS = 60.0  # how long another program may hold the lock
_TELL_AFTER = 1.0  # seconds of waiting before the user is told
_AGAIN_AFTER = 0.05  # seconds between attempts
_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
_Result = TypeVar("_Result")


class LockedFileError(Exception):
    """The file stayed locked too long; the message says what to do."""


def patiently(action: Callable[[], _Result], path: Path, *, seconds: float) -> _Result:
    """Runs an action, and repeats it while the file is locked; tells the user if that takes long.

    Args:
        action: Uses a connection without a busy timeout: Ctrl-C cannot interrupt SQLite's wait.
        path: The SQLite file.
        seconds: How long to wait.

    Raises:
        LockedFileError: The file stayed locked for `seconds`.
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
    """Returns whether an error says that the file is locked."""
    # Extended result codes carry details in the higher bytes.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BUSY


def tell(path: Path) -> None:
    """Tells the user who waits for what, without breaking the progress bar."""
    tqdm.write(f"{path}: another program has locked it; waiting up to {LOCKED_SECONDS:.0f} s")


def locked_too_long(path: Path) -> str:
    """Returns the message for a wait that was in vain: what the user can do."""
    return (
        f"{path}: another program keeps it locked. Close it (a viewer of SQLite files?), then run "
        "the same command again to resume"
    )
