# SPDX-License-Identifier: BSD-3-Clause
"""Maps a function over many items in threads, in order and with few items in memory."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_AHEAD = 256  # items submitted but not yet yielded: 40 MB of records with their images


def in_threads(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[tuple[_Item, "Future[_Result]"]]:
    """Yields every item with its future, in input order.

    Args:
        pool: Threads that call the function.
        function: Its exceptions are raised by `result()` of the item's future.
        items: Consumed in the caller's thread, at most `_AHEAD` items ahead of the output.
    """
    waiting: collections.deque[tuple[_Item, Future[_Result]]] = collections.deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) >= _AHEAD:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
