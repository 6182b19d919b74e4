# SPDX-License-Identifier: BSD-3-Clause
"""A function on many items in threads, in order, with few items in memory."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_AHEAD = 256  # items in work, waiting or done: 40 MB of records with their images


def in_threads(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[tuple[_Item, "Future[_Result]"]]:
    """Yields every item and its future, in the order of the items.

    Args:
        pool: of the threads.
        function: what it raises, `result()` of the item's future raises.
        items: taken in the caller's thread, a bounded number ahead of what was yielded.
    """
    waiting: collections.deque[tuple[_Item, Future[_Result]]] = collections.deque()
    for item in items:
        waiting.append((item, pool.submit(function, item)))
        if len(waiting) >= _AHEAD:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()
