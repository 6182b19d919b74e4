# SPDX-License-Identifier: BSD-3-Clause
"""Small trainings by real `main` commands of one or several processes."""

from pathlib import Path

from benchmarks.peers.job import Job
from tests.support.small_run import flags

__all__ = ["Job", "training"]


def training(workdir: Path, folder: Path, **changes) -> list[str]:
    """Arguments of a small training."""
    config = "--config=configs/quickstart.py"
    return [config, f"--workdir={workdir}", *flags(folder, **changes)]
