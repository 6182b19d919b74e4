# SPDX-License-Identifier: BSD-3-Clause
"""Says that a Ray cluster has ended."""

import contextlib
import socket
import sys
import threading
from types import TracebackType
from typing import Self

_INTERVAL = 10.0  # seconds; Ray gives a lost head node 60
_TIMEOUT = 10.0  # seconds for a busy machine to accept a connection
_LOST = (
    "\nthe head node of the Ray cluster ({}) does not answer. If it does not come back within a "
    "minute, Ray ends this command. Finished parts are kept: start a cluster again and run the "
    "same command to resume"
)


class HeadWatch(contextlib.AbstractContextManager["HeadWatch"]):
    """Prints a line when the head node of a cluster stops to accept connections.

    Ray ends a process whose cluster has ended from a thread of its own, where no Python code is
    asked any more.

    Args:
        address: HOST:PORT of the head node.
    """

    def __init__(self, address: str):
        self._address = address
        self._ended = threading.Event()
        self._answered = True
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()
        if isinstance(error, Exception):  # perhaps because of this, and Ray may not let it be said
            self._check()

    def _watch(self) -> None:
        while not self._ended.wait(_INTERVAL):
            self._check()

    def _check(self) -> None:
        answers = _accepts_connections(self._address)
        if self._answered and not answers:
            print(_LOST.format(self._address), file=sys.stderr, flush=True)
        self._answered = answers


def _accepts_connections(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_TIMEOUT):
            return True
    except OSError:
        return False
