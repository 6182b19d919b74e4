# SPDX-License-Identifier: BSD-3-Clause
"""The loop of all engines: hands parts to workers, and again if a worker died.

Deaths are counted here and not by Ray, whose own retries after lack of memory have no limit, so
that both engines end alike.
"""

import collections
import time
from collections.abc import Collection, Hashable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from .engine import EARLY, MAX_DEATHS, MAX_LOST, PartLostError

_MAX_LENGTH = 300  # of a part in a message


class WorkerDiedError(Exception):
    """The worker of a task ended before the task did."""


class Workers(Protocol):
    """Worker processes; a task is one attempt at a part."""

    def capacity(self) -> int:
        """Returns how many tasks may be in flight now; clusters grow and shrink."""
        ...

    def submit(self, part: Any) -> Hashable:
        """Starts a task."""
        ...

    def wait(self, tasks: Collection[Any]) -> Collection[Any]:
        """Blocks until one task or more have ended, and returns these."""
        ...

    def result(self, task: Any) -> Any:
        """Returns the result of a task that ended.

        Raises:
            WorkerDiedError: Its worker died.
            Exception: What the function raised.
        """
        ...


class _Attempt(NamedTuple):
    part: Any
    started: float = 0.0
    deaths: int = 0  # of workers that tried this part just before, each early
    lost: int = 0  # workers that tried this part before


def dispatch(workers: Workers, parts: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Yields every part with its result, see `Engine.map_unordered`."""
    first_attempts = map(_Attempt, parts)
    again: collections.deque[_Attempt] = collections.deque()
    running: dict[Any, _Attempt] = {}
    finished: list[tuple[Any, Any]] = []
    while True:
        while len(running) < workers.capacity():
            attempt = again.popleft() if again else next(first_attempts, None)
            if attempt is None:
                break
            running[workers.submit(attempt.part)] = attempt._replace(started=time.monotonic())
        # Only now, so that no worker waits for what the caller does with the results.
        yield from finished
        if not running:
            return
        finished = []
        for task in workers.wait(running):
            attempt = running.pop(task)
            try:
                finished.append((attempt.part, workers.result(task)))
            except WorkerDiedError as error:
                again.append(_next_attempt(attempt, error))
            except Exception as error:
                while running:  # what they write is complete, and the next run need not repeat it
                    for other in workers.wait(running):
                        del running[other]
                error.add_note(f"This happened while working on {_short(attempt.part)}")
                raise


def _next_attempt(attempt: _Attempt, error: WorkerDiedError) -> _Attempt:
    early = time.monotonic() - attempt.started < EARLY
    deaths, lost = attempt.deaths + 1 if early else 0, attempt.lost + 1
    if deaths == MAX_DEATHS or lost == MAX_LOST:
        raise PartLostError(
            f"{_short(attempt.part)}: {lost} workers died while working on this ({error}). If "
            "the system killed them for lack of memory, use fewer --workers; if not, see what this "
            "part has that others do not. Finished parts are kept: run the same command to resume"
        ) from error
    return attempt._replace(deaths=deaths, lost=lost)


def _short(part: Any) -> str:
    text = str(part)
    return text if len(text) <= _MAX_LENGTH else f"{text[:_MAX_LENGTH]}..."
