# SPDX-License-Identifier: BSD-3-Clause
"""Runs a command in its own process and measures its time, CPU time and memory."""

import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from peers.peak_memory import PeakMemory


class Cost(NamedTuple):
    """The cost of a command.

    Attributes:
        seconds: Time from start to exit.
        cpu_seconds: User and system time, including the children it waited for.
        peak_bytes: Peak memory including all descendants, sampled. Shared pages count once (Linux's
            proportional set size).
    """

    seconds: float
    cpu_seconds: float
    peak_bytes: int


class Command:
    """A running command, which is killed at the end of the `with` block.

    Args:
        arguments: The program and its arguments.
        folder: Working directory.
    """

    def __init__(self, arguments: Sequence[str], *, folder: Path):
        self._arguments = arguments
        self._folder = folder

    def __enter__(self) -> "Command":
        self._output = tempfile.TemporaryFile("w+")
        self._start = time.perf_counter()
        self._process = subprocess.Popen(
            self._arguments,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        self._memory = PeakMemory(self._process.pid)
        self._memory.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # does nothing if it has exited
        self._process.wait()
        self._memory.stop()
        self._output.close()

    def kill_after(self, seconds: float) -> bool:
        """Sends SIGKILL after a delay; returns False if the command had already exited."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return True
        return False

    @property
    def pid(self) -> int:
        """Process id of the command."""
        return self._process.pid

    def finish(self) -> Cost:
        """Waits until the command exits.

        Raises:
            RuntimeError: The command failed; the message has the end of its output.
        """
        cost, lines = self.end()
        if self._process.returncode:
            raise RuntimeError(f"{' '.join(self._arguments)} failed:\n{lines}")
        return cost

    def end(self) -> tuple[Cost, str]:
        """Waits until the command exits, successful or not; returns also its last lines."""
        # wait4, not Popen.wait: it returns the usage of this child alone, where getrusage adds up
        # all children so far. Popen must then be told the exit code, or it would wait once more.
        _, status, usage = os.wait4(self._process.pid, 0)
        seconds = time.perf_counter() - self._start
        self._process.returncode = os.waitstatus_to_exitcode(status)
        self._memory.stop()
        cost = Cost(seconds, usage.ru_utime + usage.ru_stime, self._memory.peak_bytes)
        return cost, self.last_lines()

    def last_lines(self, count: int = 30) -> str:
        """Returns the last lines of standard output and standard error."""
        self._output.seek(0)
        return "\n".join(self._output.read().splitlines()[-count:])
