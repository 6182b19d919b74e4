# SPDX-License-Identifier: BSD-3-Clause
"""Who a process is, so that another one can say later whether it still lives. Linux only."""

import datetime
import json
import os
import socket
import time
import uuid
from pathlib import Path
from typing import NamedTuple


class Owner(NamedTuple):
    """A process that holds something.

    Attributes:
        host: its name.
        pid: within `machine`.
        since: when it took hold, for people.
        task: what it does.
        machine: of the processes that see each other: the start of the machine, and the container.
        born: when the process began, in ticks since the machine did; process ids come again.
        token: nobody else's.
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
        """The present process."""
        since = datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
        pid = os.getpid()
        return cls(socket.gethostname(), pid, since, task, _machine(), _born(pid), uuid.uuid4().hex)

    @classmethod
    def read(cls, text: str | bytes) -> "Owner | None":
        """The process that a text names; None where it names none."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def text(self) -> str:
        """What `read` reads."""
        return json.dumps(self._asdict())

    def is_known_dead(self) -> bool:
        """Whether it ran beside this process, and does no more."""
        return self.machine == _machine() and bool(self.born) and _born(self.pid) != self.born

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host} (task {self.task}, since {self.since})"


def boot() -> str:
    """Of the start of this machine, another one after every start; "" where nobody says it."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def uptime() -> float:
    """Seconds since this machine started, with those in which it slept; nobody sets that clock."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _machine() -> str:
    """Of all processes whose ids mean the same; containers of one machine have ids of their own."""
    try:
        return f"{boot()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return uuid.uuid4().hex  # beside nobody


def _born(pid: int) -> str:
    """When a process began; "" where there is none."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    fields = state.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]  # a zombie has ended
