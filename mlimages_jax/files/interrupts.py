# SPDX-License-Identifier: BSD-3-Clause
"""Holds Ctrl-C back while an object of a bucket is written.

It would leave the object with what was written by then, or an empty one, in place of an earlier
one: pyarrow and fsspec complete an upload when its stream is closed, whatever the reason.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Holds Ctrl-C back until the block has ended; however often it came, it then comes once."""
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield  # nothing is raised here: Python runs handlers in the main thread only
        return
    # A list and no Event: a handler that is interrupted by itself must not wait for its own lock.
    arrived: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: arrived.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if arrived:
            signal.raise_signal(signal.SIGINT)
