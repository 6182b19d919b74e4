# SPDX-License-Identifier: BSD-3-Clause
"""How many bytes of files may be in memory at a time, over all threads."""

import contextlib
import threading
from collections.abc import Iterator


class ByteBudget:
    """Lets threads hold a number of bytes together; the others wait.

    Args:
        limit: in bytes. Who wants more than that has to wait until nobody holds anything.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Waits until `size` bytes are free; `give` them back."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._limit)
            self._held += size

    def give(self, size: int) -> None:
        """Gives bytes back, from any thread."""
        with self._changed:
            self._held -= size
            self._changed.notify_all()

    @contextlib.contextmanager
    def taken(self, size: int) -> Iterator[None]:
        """Holds bytes for a block."""
        self.take(size)
        try:
            yield
        finally:
            self.give(size)
