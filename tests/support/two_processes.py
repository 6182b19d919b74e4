# SPDX-License-Identifier: BSD-3-Clause
"""Runs a script in two real jax processes on this machine, each with some virtual devices."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from benchmarks.peers.job import inherited_environment

ROOT = Path(__file__).resolve().parents[2]
_START = """
import sys
import jax
jax.config.update("jax_num_cpu_devices", {devices})
jax.distributed.initialize("127.0.0.1:{port}", num_processes=2, process_id=int(sys.argv[1]))
"""


def run(script: str, *, devices: int = 2, timeout: float = 240) -> None:
    """Runs the script in both; neither outlives the call.

    Args:
        script: Python, run after jax has been initialised.
        devices: of each process.
        timeout: seconds.

    Raises:
        AssertionError: with the output, when one of them fails or takes too long.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = _START.format(devices=devices, port=port) + script
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(number)],
            cwd=ROOT,
            env=inherited_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for number in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=timeout)[0] for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-5000:]
