# SPDX-License-Identifier: BSD-3-Clause
"""Results in the order of the parts, for output that must not depend on the number of workers."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from .engine import Engine, Part, Result


class _Numbered(NamedTuple):
    number: int
    part: Any

    def __str__(self) -> str:  # in messages of an engine
        return str(self.part)


def map_ordered(
    engine: Engine, function: Callable[[Part], Result], parts: Iterable[Part]
) -> Iterator[tuple[Part, Result]]:
    """Yields every part with its result like `Engine.map_unordered`, but in the order of `parts`.

    Results wait in memory for those before them, so they should be small.
    """
    waiting: dict[int, tuple[Part, Result]] = {}
    numbered = map(_Numbered._make, enumerate(parts))
    next_number = 0
    for done, result in engine.map_unordered(functools.partial(_call, function), numbered):
        waiting[done.number] = (done.part, result)
        while next_number in waiting:
            yield waiting.pop(next_number)
            next_number += 1


def _call(function: Callable[[Any], Any], numbered: _Numbered) -> Any:
    return function(numbered.part)
