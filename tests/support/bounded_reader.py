# SPDX-License-Identifier: BSD-3-Clause
"""Reads files as `mlimages_jax.load` and `convert` do, in a process that may use little memory.

    python -m tests.support.bounded_reader MEGABYTES FILE...

prints one JSON object by file: the kind of the error, its message, and the megabytes by which the
peak of the process has grown so far.
"""

import json
import resource
import sys
from pathlib import Path

import jax

from mlimages_jax.checkpoints import saved_model
from mlimages_jax.convert.tensorflow_checkpoint import TensorFlowCheckpoint


def _used() -> int:
    """Bytes of address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _read(path: str) -> None:
    if path.endswith(".safetensors"):
        saved_model._from_file(Path(path), None, step=None)
        return
    checkpoint = TensorFlowCheckpoint(path)
    for name in checkpoint.entries:
        checkpoint.read(name)


def main(megabytes: str, *paths: str) -> None:
    jax.devices()  # which reserves much
    limit = _used() + (int(megabytes) << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in paths:
        try:
            _read(path)
            kind, message = "", ""
        except BaseException as error:
            kind, message = type(error).__name__, str(error)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        grown = (peak - before) / 1024
        print(json.dumps({"path": path, "kind": kind, "message": message, "grown": grown}))


if __name__ == "__main__":
    main(*sys.argv[1:])
