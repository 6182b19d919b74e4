# SPDX-License-Identifier: BSD-3-Clause
"""A task of a config in a process of its own, alone or one of several that work together."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from benchmarks.peers.job import inherited_environment
from tests.support.small_run import ROOT, load_config

DEVICES = 8  # of all processes together


@contextlib.contextmanager
def running(
    task: str,
    workdir: Path | str,
    values: dict[str, Any],
    *,
    count: int,
    environment: dict[str, str] | None = None,
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that were started together, each in a session of its own; none survives the block.

    Args:
        task: "classify" or "export_features".
        workdir: of the task.
        values: of its config.
        count: of processes.
        environment: theirs; default: ours, without settings of JAX.
    """
    environment = environment or inherited_environment()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        _start(
            [task, str(workdir), json.dumps(values), str(port), str(number), str(count)],
            environment,
        )
        for number in range(count)
    ]
    try:
        yield processes
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _start(arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.task_process", *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def main(task: str, workdir: str, values: str, port: str, number: str, count: str) -> None:
    jax.config.update("jax_num_cpu_devices", DEVICES // int(count))
    if int(count) > 1:
        jax.distributed.initialize(
            f"127.0.0.1:{port}", num_processes=int(count), process_id=int(number)
        )
    from mlimages_jax.features.export import export_task
    from mlimages_jax.inference import tag_task

    run = {"classify": tag_task.classify, "export_features": export_task.export}
    run[task](load_config(task, **json.loads(values)), workdir)


if __name__ == "__main__":
    main(*sys.argv[1:])
