# SPDX-License-Identifier: BSD-3-Clause
"""Measures work in a fresh process of the same script, whose memory no other work has touched."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def run(script: str, *words: str) -> Any:
    """Runs a script in a fresh interpreter and returns the JSON that it prints.

    Args:
        script: Path of the script.
        words: Its command line.

    Raises:
        CalledProcessError: The script failed.
    """
    command = [sys.executable, script, *words]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


@contextlib.contextmanager
def measured() -> Iterator[dict[str, Any]]:
    """Yields a dict that has the cost of the block at its end.

    wall_s and cpu_s are seconds; peak_bytes is the largest resident memory of this process so far,
    added_bytes how far that is above the level before the block.
    """
    cost: dict[str, Any] = {}
    before = resident_bytes("VmRSS")
    wall, cpu = time.perf_counter(), time.process_time()
    yield cost
    cost["wall_s"] = time.perf_counter() - wall
    cost["cpu_s"] = time.process_time() - cpu
    cost["peak_bytes"] = resident_bytes("VmHWM")
    cost["added_bytes"] = cost["peak_bytes"] - before


def resident_bytes(field: str) -> int:
    """Returns memory of this process: VmRSS is resident now, VmHWM is the peak so far.

    Raises:
        RuntimeError: This is not Linux.
    """
    status = Path("/proc/self/status")
    text = status.read_text(encoding="ascii") if status.exists() else ""
    match = re.search(rf"{field}:\s+(\d+) kB", text)
    if match is None:
        raise RuntimeError(f"{status} has no {field}; run this benchmark on Linux")
    return int(match.group(1)) * 1024
