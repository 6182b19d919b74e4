# SPDX-License-Identifier: BSD-3-Clause
"""Runs `main` in several processes on this machine, which never outlive their `with` block."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]

_COMPILATION = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


class Job:
    """A context manager for one training in several processes with virtual devices.

    Args:
        logs: Folder for the output of the processes.
        arguments: Arguments of `python -m mlimages_jax.main`.
        count: Number of processes; a single one is started without flags for distributed runs.
        devices: Devices per process.
        absent: Indices of processes that are not started.
        prefix: Python code to run before main, to make it misbehave.
    """

    def __init__(
        self,
        logs: Path,
        arguments: list[str],
        *,
        count: int = 1,
        devices: int = 2,
        absent: tuple[int, ...] = (),
        prefix: str = "",
    ):
        logs.mkdir(parents=True, exist_ok=True)
        run = f"{prefix}\nfrom mlimages_jax.main import run\nrun()"
        environment = inherited_environment() | {"JAX_NUM_CPU_DEVICES": str(devices)}
        port = free_port()
        self.logs: dict[int, Path] = {}
        self.processes: dict[int, subprocess.Popen] = {}
        self._copies: list[threading.Thread] = []
        for number in range(count):
            if number in absent:
                continue
            others = [
                f"--coordinator_address=127.0.0.1:{port}",
                f"--num_processes={count}",
                f"--process_id={number}",
            ]
            self.logs[number] = logs / f"{number}-{time.monotonic_ns()}.log"
            process = subprocess.Popen(
                [sys.executable, "-c", run, *arguments, *(others if count > 1 else [])],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
            )
            self.processes[number] = process
            log = self.logs[number].open("wb", buffering=0)
            # Through a pipe: RLIMIT_FSIZE, which some prefixes set, would truncate a log file.
            copy = threading.Thread(target=shutil.copyfileobj, args=(process.stdout, log))
            copy.start()
            self._copies.append(copy)

    def __enter__(self) -> "Job":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        for copy in self._copies:
            copy.join()

    def output(self, number: int = 0) -> str:
        """Returns what a process has printed so far."""
        return self.logs[number].read_text()

    def until(self, text: str, number: int = 0, *, seconds: float = 120) -> None:
        """Waits until a process prints a text; fails if it exits first."""
        deadline = time.monotonic() + seconds
        while text not in self.output(number):
            ended = self.processes[number].poll() is not None
            assert not ended and time.monotonic() < deadline, self.output(number)[-3000:]
            time.sleep(0.005)

    def send(self, number: int, kind: signal.Signals) -> None:
        """Sends a signal to a process, unless it has exited."""
        self.processes[number].send_signal(kind)

    def wait(self, *, seconds: float = 120) -> list[int]:
        """Waits for all processes and returns their exit codes; fails if one takes longer."""
        deadline = time.monotonic() + seconds
        for number, process in self.processes.items():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                raise AssertionError(
                    f"process {number} is still running:\n{self.output(number)[-3000:]}"
                ) from None
        for copy in self._copies:
            copy.join()
        return [process.returncode for process in self.processes.values()]


def inherited_environment() -> dict[str, str]:
    """Returns the environment for a child process with its own CPU devices.

    Only JAX settings about compilation are inherited: the child must compile as its parent does, or
    results differ in the last bits, and it shares the parent's compilation cache.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _COMPILATION or not name.startswith(("JAX_", "XLA_"))
    }
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
    return kept | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": " ".join(flags)}


def free_port() -> int:
    """Returns a free port of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
