# SPDX-License-Identifier: BSD-3-Clause
"""Identifies a process, so that another can tell later whether it is still running. Linux only."""

import datetime
import json
import os
import socket
import time
import uuid
from pathlib import Path
from typing import NamedTuple


class Owner(NamedTuple):
    """A process that holds a lock.

    Attributes:
        host: Host name.
        pid: Process id, unique within `machine`.
        since: Time when it took the lock, for messages.
        task: What the process does.
        machine: Boot id and PID namespace (container), within which process ids are comparable.
        born: Start time of the process in clock ticks since boot, as process ids are reused.
        token: Random value unique to this object.
    """

    host: str
    pid: int
    since: str
    task: str
    machine: str
    born: str
    token: str

    @classmethod
    def this(cls, task: str) -> "Owner":
        """Describes the current process."""
        # The wall clock is for people only; whether a process is alive is judged by `born`.
        since = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        pid = os.getpid()
        return cls(socket.gethostname(), pid, since, task, _machine(), _born(pid), uuid.uuid4().hex)

    @classmethod
    def read(cls, text: str | bytes) -> "Owner | None":
        """Parses the output of `text`; None if it is malformed."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def text(self) -> str:
        """Serialises to the format of `read`."""
        return json.dumps(self._asdict())

    def is_known_dead(self) -> bool:
        """Returns whether it ran on this machine and has ended; False if that cannot be known."""
        return self.machine == _machine() and bool(self.born) and _born(self.pid) != self.born

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (task {self.task}, since {self.since})"


def boot() -> str:
    """Returns the boot id of this machine, which changes at every boot; "" if unavailable."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def uptime() -> float:
    """Seconds since boot, including suspend; unlike the wall clock, it is never adjusted."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _machine() -> str:
    """Returns boot id and PID namespace; each container has process ids of its own."""
    try:
        return f"{boot()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid.uuid4().hex  # comparable to no other process


def _born(pid: int) -> str:
    """Returns the start time of a process in clock ticks since boot; "" if it is not running."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The second field is the program's name in parentheses, which may itself contain spaces and
    # parentheses. After it come field 3, the state, to field 22, the start time (proc(5)).
    fields = state.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]  # zombies have ended
