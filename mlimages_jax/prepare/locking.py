# SPDX-License-Identifier: BSD-3-Clause
"""One job a folder: two that write to the same one would undo each other's work."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from mlimages_jax.prepare import PrepareError
from mlimages_jax.prepare.storing import writing


@contextlib.contextmanager
def alone(lock: Path) -> Iterator[None]:
    """Holds a lock that ends with this process, however it ends.

    Args:
        lock: a file in the folder; it stays, empty.

    Raises:
        PrepareError: another job holds it, or the folder cannot be written to.
    """
    with writing(lock):
        file = lock.open("w")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise PrepareError(
                f"{lock} is locked: another job writes here. Wait for it, or give another --output"
            ) from error
        yield
