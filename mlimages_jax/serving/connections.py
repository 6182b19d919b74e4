# SPDX-License-Identifier: BSD-3-Clause
"""Closes connections of clients that neither send nor read."""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

PATIENCE = 10.0  # seconds between two checks of a connection, the second of which closes it


class ImpatientConnection(H11Protocol):
    """Closes a connection without a whole request head, or whose client reads no answer.

    uvicorn itself waits without end for the first head of a connection, and for clients that do not
    read. A body has a time limit of its own, see `Limits.body_seconds`. h11 limits the size of a
    head to 64 kB.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Starts checking the connection."""
        super().connection_made(transport)
        self._seen: tuple[Any, int] | None = None
        self._next_look = self.loop.call_later(PATIENCE, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stops checking."""
        self._next_look.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        waits = self.cycle is None or self.cycle.response_complete
        state = (self.cycle, unsent)
        # The same cycle and the same number of unsent bytes as before: nothing has moved.
        if (waits or unsent) and state == self._seen:
            self.transport.abort()  # close() would wait for the client to read
            return
        # While a request is computed, nothing is expected of the client.
        self._seen = state if waits or unsent else None
        self._next_look = self.loop.call_later(PATIENCE, self._look)
