# SPDX-License-Identifier: BSD-3-Clause
"""Says that a Ray cluster has ended."""

import contextlib
import socket
import sys
import threading
from collections.abc import Iterator

_INTERVAL = 10.0  # seconds; Ray gives a lost head node 60
_TIMEOUT = 10.0  # seconds for a busy machine to accept a connection
_LOST = (
    "\nthe head node of the Ray cluster ({}) does not answer. If it does not come back within a "
    "minute, Ray ends this command. Finished parts are kept: start a cluster again and run the "
    "same command to resume"
)


@contextlib.contextmanager
def watched(address: str) -> Iterator[None]:
    """Prints a line when the head node of a cluster stops accepting connections, in the block.

    Ray ends a process whose cluster has ended from a thread of its own, where no Python code is
    asked any more.

    Args:
        address: HOST:PORT of the head node.
    """
    head, ended = _Head(address), threading.Event()

    def watch() -> None:
        while not ended.wait(_INTERVAL):
            head.check()

    def end() -> None:
        ended.set()
        thread.join()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    except Exception:  # perhaps because of this, and Ray may not let it be said
        end()
        head.check()
        raise
    finally:
        end()


class _Head:
    """A head node, and whether it answered when it was last asked."""

    def __init__(self, address: str):
        self._address, self._answered = address, True

    def check(self) -> None:
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
