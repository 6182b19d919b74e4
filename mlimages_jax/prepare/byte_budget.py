# SPDX-License-Identifier: BSD-3-Clause
"""Limits how many bytes of files are in memory at a time, over all threads."""

import threading


class ByteBudget:
    """A number of bytes that threads share; a thread waits while too few are free.

    Args:
        limit: Bytes in use at a time. A single request for more waits until nothing is in use.
    """

    def __init__(self, limit: int):
        self._limit = limit
        self._held = 0
        self._changed = threading.Condition()

    def take(self, size: int) -> None:
        """Waits until `size` bytes are free and reserves them; `give` releases them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + size <= self._limit)
            self._held += size

    def give(self, size: int) -> None:
        """Releases bytes, from any thread."""
        with self._changed:
            self._held -= size
            self._changed.notify_all()
