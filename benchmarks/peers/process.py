# SPDX-License-Identifier: BSD-3-Clause
"""The parent's side of a measurement: starts a peer, sends requests, measures CPU and memory.

A peer is a module of this package in a fresh interpreter. This isolates its memory and threads, and
a library that is missing or conflicts with another affects only that peer.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from peers.peak_memory import PeakMemory, with_descendants

BENCHMARKS = Path(__file__).resolve().parents[1]


class NotInstalledError(Exception):
    """The peer's interpreter lacks a library."""


class Answer(NamedTuple):
    """The answer to a request.

    Attributes:
        values: Figures reported by the peer.
        cpu_seconds: User and system time of its processes between request and answer.
        peak_bytes: Peak memory of its processes since the start, sampled. Shared pages count once
            (Linux's proportional set size).
    """

    values: dict[str, Any]
    cpu_seconds: float
    peak_bytes: int


class Peer:
    """A context manager for a running peer.

    Args:
        module: Name of a module of this package.
        arguments: JSON values for `serve.arguments`.
        python: Interpreter of the peer.
        environment: Additional environment variables.

    Attributes:
        about: What the peer reported when it was ready.

    Raises:
        NotInstalledError: On entering, if an import failed.
        RuntimeError: The peer exited early; the message has the end of its output.
    """

    def __init__(
        self,
        module: str,
        arguments: dict[str, Any],
        *,
        python: str = sys.executable,
        environment: dict[str, str] | None = None,
    ):
        path = os.pathsep.join([str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")])
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 outlives this method
        self._process = subprocess.Popen(
            [python, "-m", f"peers.{module}", json.dumps(arguments)],
            cwd=BENCHMARKS,
            env=os.environ | {"PYTHONPATH": path} | (environment or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._module = module
        self._memory = PeakMemory(self._process.pid)
        self.about: dict[str, Any] = {}

    def __enter__(self) -> "Peer":
        self._memory.start()
        try:
            self.about = self._read()
        except BaseException:  # also Ctrl-C
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._memory.stop()
        self._process.communicate()  # closing its input stops it
        self._errors.close()

    def ask(self, request: str) -> Answer:
        """Sends one line and waits for the answer."""
        assert self._process.stdin is not None
        before = self._cpu_seconds()
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        values = self._read()
        return Answer(values, self._cpu_seconds() - before, self._memory.peak_bytes)

    def _read(self) -> dict[str, Any]:
        """Reads the next line of JSON; libraries may write other lines."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._errors.seek(0)
        lines = self._errors.read().splitlines() or ["it printed nothing"]
        # The last line of a traceback names the exception; the import itself is in the peer.
        if "ModuleNotFoundError" in lines[-1]:
            raise NotInstalledError(lines[-1])
        raise RuntimeError("\n".join([f"the peer {self._module} exited early:", *lines[-20:]]))

    def _cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in with_descendants(self._process.pid)]
        return sum(each.user + each.system for each in times)
