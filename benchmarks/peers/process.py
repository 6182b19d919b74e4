# SPDX-License-Identifier: BSD-3-Clause
"""The parent's side of a measurement: starts a peer, asks it, watches its CPU time and memory.

A peer is a module of this package in a fresh interpreter, so that its memory and threads are its
own, and a library that is missing or clashes with another stops nothing else.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any, NamedTuple

import psutil

BENCHMARKS = Path(__file__).resolve().parents[1]
SAMPLE_EVERY = 0.2  # seconds between two looks at the memory


class NotInstalledError(Exception):
    """The peer's interpreter lacks a library."""


class Answer(NamedTuple):
    """What came back.

    Attributes:
      values: The peer's own figures.
      cpu_seconds: User and system time of its processes from the request to the answer.
      peak_bytes: Memory of its processes since it started. Pages that several of them share count
        once (Linux's proportional set size, sampled).
    """

    values: dict[str, Any]
    cpu_seconds: float
    peak_bytes: int


class Peer:
    """A running peer; use as a context manager.

    Args:
      module: Of this package.
      arguments: For `serve.arguments`; JSON values.
      python: Its interpreter.
      environment: Variables to set for it.

    Attributes:
      about: What it said when it was ready.

    Raises:
      NotInstalledError: On entering, when an import failed.
      RuntimeError: When it ended early, with the end of what it wrote.
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
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 lives on
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
        self._ended = threading.Event()
        self._peak_bytes = 0
        self._sampler = threading.Thread(target=self._sample, daemon=True)
        self.about: dict[str, Any] = {}

    def __enter__(self) -> "Peer":
        self._sampler.start()
        try:
            self.about = self._read()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._sampler.join()
        self._process.communicate()  # closes its input, which is the sign to end
        self._errors.close()

    def ask(self, request: str) -> Answer:
        """Sends one line, waits for the answer."""
        assert self._process.stdin is not None
        before = self._cpu_seconds()
        self._process.stdin.write(f"{request}\n")
        self._process.stdin.flush()
        values = self._read()
        return Answer(values, self._cpu_seconds() - before, self._peak_bytes)

    def _read(self) -> dict[str, Any]:
        """The next line of JSON; libraries may write other lines."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self._errors.seek(0)
        lines = self._errors.read().splitlines() or ["it wrote nothing"]
        if "ModuleNotFoundError" in lines[-1]:
            raise NotInstalledError(lines[-1])
        raise RuntimeError("\n".join([f"the peer {self._module} ended early:", *lines[-20:]]))

    def _cpu_seconds(self) -> float:
        times = [process.cpu_times() for process in self._processes()]
        return sum(each.user + each.system for each in times)

    def _processes(self) -> list[psutil.Process]:
        root = psutil.Process(self._process.pid)
        return [root, *root.children(recursive=True)]

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY):
            try:
                resident = sum(resident_bytes(process) for process in self._processes())
            except psutil.Error:  # a process has just ended
                continue
            self._peak_bytes = max(self._peak_bytes, resident)


def resident_bytes(process: psutil.Process) -> int:
    """Memory of a process; on Linux, pages that several share count once in all of them."""
    memory = process.memory_full_info()
    return getattr(memory, "pss", memory.rss)
