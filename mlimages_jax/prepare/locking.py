# SPDX-License-Identifier: BSD-3-Clause
"""Locks files and folders: two jobs that write to the same one would undo each other's work."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.storing import writing

_POLL = 0.1  # seconds


@contextlib.contextmanager
def alone(lock: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Holds an exclusive lock, which the system releases when the process ends, even if killed.

    Args:
        lock: A file in the folder; it is created empty and never deleted.
        patience: Seconds to wait for another job that holds it.

    Raises:
        PrepareError: Another job holds the lock, or the folder cannot be written to.
    """
    with _opened(lock) as file:
        deadline = time.monotonic() + patience
        while not _is_ours(file):
            if time.monotonic() >= deadline:
                raise PrepareError(
                    f"{lock} is locked: another job writes here. Wait for it to end, or choose"
                    " another --output"
                )
            time.sleep(_POLL)
        yield


@contextlib.contextmanager
def in_turn(lock: Path) -> Iterator[None]:
    """Holds an exclusive lock like `alone`, but waits for it.

    Args:
        lock: As for `alone`.

    Raises:
        PrepareError: The folder cannot be written to.
    """
    with _opened(lock) as file:
        with contextlib.suppress(OSError):  # without locks all do the work, each for itself
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _opened(lock: Path) -> TextIO:
    # Never deleted: a job that had opened the old file could lock it while another locks a new one.
    with writing(lock):
        return lock.open("w")


def _is_ours(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
