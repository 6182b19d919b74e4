# SPDX-License-Identifier: BSD-3-Clause
"""What every engine promises to the commands that prepare data."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")

MAX_DEATHS = 3  # workers in a row that one part may lose early: chance rarely hits it three times
# Seconds; a worker that dies later is no sign against its part: machines live for a day, say, and a
# download may need several. What it has committed by then is not done again.
EARLY = 600.0
MAX_LOST = 30  # workers that one part may lose at all


class PartLostError(ChildProcessError):
    """Too many workers died while doing a part: killed, out of memory, or with their machines."""


class Engine(Protocol):
    """Maps a function over parts in worker processes that may die at any time.

    The function must be idempotent and write its output completely or not at all, because a part
    whose worker died is done again, possibly while the first worker still runs on a machine that
    the network has lost.

    Attributes:
        threads: Number of threads that the function should use for a part, so that all parts in
            flight together use every core once.
    """

    threads: int

    def map_unordered(
        self, function: Callable[[Part], Result], parts: Iterable[Part]
    ) -> Iterator[tuple[Part, Result]]:
        """Yields every part with its result, as they end.

        No part is started before the first result is asked for. Closing the iterator stops the
        workers at once, as Ctrl-C and the end of this process do.

        Args:
            function: Picklable; sent once to every worker, so it may hold what all parts share.
                Imported by name in the workers: a function of a module, or a partial of one.
            parts: Picklable and small; consumed lazily, a few more than there are workers.

        Raises:
            PartLostError: `MAX_DEATHS` workers in a row died within `EARLY` seconds while doing the
                same part, or `MAX_LOST` at any time.
            Exception: What the function raised, with its traceback and a note that names the part.
                No further parts are started; those in flight end first.
        """
        ...
