# SPDX-License-Identifier: BSD-3-Clause
"""Samples the memory of a process and its descendants while it runs."""

import threading

import psutil

_EVERY = 0.2  # seconds between two samples


class PeakMemory:
    """The most memory that a process and its descendants have had at once.

    Shared pages count once (Linux's proportional set size).

    Args:
        pid: The process.

    Attributes:
        peak_bytes: The peak so far, as sampled.
    """

    def __init__(self, pid: int):
        self.peak_bytes = 0
        self._pid = pid
        self._ended = threading.Event()
        self._sampler = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        """Starts sampling."""
        self._sampler.start()

    def stop(self) -> None:
        """Stops sampling; `peak_bytes` stays."""
        self._ended.set()
        self._sampler.join()

    def _sample(self) -> None:
        while not self._ended.wait(_EVERY):
            try:
                resident = sum(_resident_bytes(process) for process in with_descendants(self._pid))
            except psutil.Error:  # a process has just ended
                continue
            self.peak_bytes = max(self.peak_bytes, resident)


def with_descendants(pid: int) -> list[psutil.Process]:
    """Returns a process and its descendants."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]


def _resident_bytes(process: psutil.Process) -> int:
    """Returns the memory of a process; on Linux shared pages are divided among their users."""
    memory = process.memory_full_info()
    return getattr(memory, "pss", memory.rss)
