# SPDX-License-Identifier: BSD-3-Clause
"""The worker processes that a process has started by `multiprocessing`."""

import contextlib

import psutil


def started_by(pid: int | None = None) -> list[psutil.Process]:
    """Returns those that run; default: of this process. One that ends meanwhile may be missing."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # a killed one, too
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
    return found
