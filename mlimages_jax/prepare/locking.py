# SPDX-License-Identifier: BSD-3-Clause
"""Locks an output folder: two jobs that write to the same one would undo each other's work."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.storing import writing


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Holds an exclusive lock, which the system releases when the process ends, even if killed.

    Args:
        lock: A file in the folder; it is created empty and never deleted.

    Raises:
        PrepareError: Another job holds the lock, or the folder cannot be written to.
    """
    # Never deleted: a job that had opened the old file could lock it while another locks a new one.
    with writing(lock):
        file = lock.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PrepareError(
                f"{lock} is locked: another job writes here. Wait for it to end, or choose"
                " another --output"
            ) from error
        yield
