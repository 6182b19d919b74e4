# SPDX-License-Identifier: BSD-3-Clause
"""Queues jobs by host, so that a slow or busy host does not hold up the others."""

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
    listed: bool = False  # has a startable job: is in `_ready`, or in `_later` while paused


class HostQueues(Generic[Job]):
    """Queues of jobs by host, served round-robin; for one event loop and one consumer.

    Args:
        per_host: Maximum number of jobs of one host in progress.
    """

    def __init__(self, *, per_host: int):
        self._per_host = per_host
        self._hosts: dict[str, _Host[Job]] = {}
        self._ready: collections.deque[str] = collections.deque()
        self._later: list[tuple[float, int, str, Job | None]] = []
        # Jobs need not be comparable: the heap compares these numbers where two times are equal.
        self._ties = itertools.count()
        self._changed = asyncio.Event()

    def add(self, host: str, job: Job, *, delay: float = 0.0) -> None:
        """Queues a job; with a delay, in seconds, it is invisible until then."""
        if delay > 0:
            self._push_later(time.monotonic() + delay, host, job)
        else:
            self._queue(host, job)
        self._changed.set()

    def pause(self, host: str, seconds: float) -> None:
        """Hands out no job of this host for `seconds`."""
        entry = self._hosts.setdefault(host, _Host())
        entry.not_before = max(entry.not_before, time.monotonic() + seconds)

    async def get(self) -> tuple[str, Job]:
        """Waits for the next (host, job); the caller must call `done(host)` afterwards."""
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
        """Reports that a job of this host has ended."""
        entry = self._hosts[host]
        entry.active -= 1
        if entry.jobs:
            self._list(host, entry)
            self._changed.set()
        elif not entry.active and entry.not_before <= time.monotonic():
            self._hosts.pop(host)  # a list may contain a million hosts

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
        """Moves entries that are due from `_later` to the queues."""
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
