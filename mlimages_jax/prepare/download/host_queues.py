# SPDX-License-Identifier: BSD-3-Clause
"""Who is asked next: jobs wait by host, so that a slow or busy host holds up nobody else's."""

import asyncio
import collections
import dataclasses
import heapq
import itertools
import time
from typing import Generic, TypeVar

Job = TypeVar("Job")


@dataclasses.dataclass
class _Host(Generic[Job]):
    jobs: collections.deque[Job] = dataclasses.field(default_factory=collections.deque)
    active: int = 0
    not_before: float = 0.0
    listed: bool = (
        False  # has a job that may be taken: stands in `_ready`, or in `_later` if paused
    )


class HostQueues(Generic[Job]):
    """Jobs by host, handed out in turn over the hosts; for one event loop and one taker.

    Args:
        per_host: jobs of one host that may be in work at a time.
    """

    def __init__(self, *, per_host: int):
        self._per_host = per_host
        self._hosts: dict[str, _Host[Job]] = {}
        self._ready: collections.deque[str] = collections.deque()
        self._later: list[tuple[float, int, str, Job | None]] = []
        self._ties = itertools.count()
        self._changed = asyncio.Event()

    def add(self, host: str, job: Job, *, delay: float = 0.0) -> None:
        """Queues a job; one with a delay, in seconds, stays out of sight until then."""
        if delay > 0:
            self._push_later(time.monotonic() + delay, host, job)
        else:
            self._queue(host, job)
        self._changed.set()

    def pause(self, host: str, seconds: float) -> None:
        """Hands out no job of this host for a while."""
        entry = self._hosts.setdefault(host, _Host())
        entry.not_before = max(entry.not_before, time.monotonic() + seconds)

    async def get(self) -> tuple[str, Job]:
        """The next host and job, when there is one; say `done` afterwards."""
        while True:
            self._wake()
            if (found := self._take()) is not None:
                return found
            self._changed.clear()
            timeout = self._later[0][0] - time.monotonic() if self._later else None
            try:
                await asyncio.wait_for(self._changed.wait(), timeout)
            except TimeoutError:
                continue

    def done(self, host: str) -> None:
        """Says that a job of this host has come to its end."""
        entry = self._hosts[host]
        entry.active -= 1
        if entry.jobs:
            self._list(host, entry)
            self._changed.set()
        elif not entry.active and entry.not_before <= time.monotonic():
            self._hosts.pop(host)  # a list may name a million hosts

    def _queue(self, host: str, job: Job) -> None:
        entry = self._hosts.setdefault(host, _Host())
        entry.jobs.append(job)
        self._list(host, entry)

    def _list(self, host: str, entry: _Host[Job]) -> None:
        if not entry.listed and entry.active < self._per_host:
            entry.listed = True
            self._ready.append(host)

    def _push_later(self, when: float, host: str, job: Job | None) -> None:
        heapq.heappush(self._later, (when, next(self._ties), host, job))

    def _wake(self) -> None:
        """Moves what is due from `_later` to where it is handed out."""
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            _, _, host, job = heapq.heappop(self._later)
            if job is not None:
                self._queue(host, job)
            else:
                self._ready.append(host)

    def _take(self) -> tuple[str, Job] | None:
        while self._ready:
            host = self._ready.popleft()
            entry = self._hosts[host]
            if entry.not_before > time.monotonic():
                self._push_later(entry.not_before, host, None)  # still listed
                continue
            entry.listed = False
            job = entry.jobs.popleft()
            entry.active += 1
            if entry.jobs:
                self._list(host, entry)
            return host, job
        return None
