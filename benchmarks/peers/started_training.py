# SPDX-License-Identifier: BSD-3-Clause
"""Starts a training like the command `main`, stops after its first step and reports the times.

    python -m peers.started_training SPAWNED go|stop --config=... --workdir=...

SPAWNED is the Unix time at which the parent started this process. Prints a line of JSON: the
seconds from then to the end of the first step, and those of the parts, which may overlap. With
`stop` the training is stopped on request after that step, so that it saves a checkpoint.
"""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

SPAWNED = float(sys.argv[1])
SECONDS: dict[str, float] = {}


def timed(name: str, function: Callable[..., Any], *, first: bool = False) -> Callable[..., Any]:
    """Wraps a function to add up its time under a name; with `first`, only of the first call."""

    def run(*args: Any, **kwargs: Any) -> Any:
        if first and name in SECONDS:
            return function(*args, **kwargs)
        start = time.time()
        try:
            return function(*args, **kwargs)
        finally:
            SECONDS[name] = SECONDS.get(name, 0.0) + time.time() - start

    return run


def watch(*, stop: bool) -> None:
    """Wraps the parts of `train.train` with timers."""
    # Inside the function: these imports are what `imports` measures.
    import jax

    from mlimages_jax.data import device_batches
    from mlimages_jax.monitoring import training_log
    from mlimages_jax.step.training_step import TrainingStep
    from mlimages_jax.training import run, train

    SECONDS["imports"] = time.time() - SPAWNED
    run.sharding.make_mesh = timed("devices", run.sharding.make_mesh, first=True)
    run.open_data = timed("data", run.open_data)
    run.make_evaluations = timed("data", run.make_evaluations)
    run.training_step = timed("shapes", run.training_step)
    checkpoints: Any = train.Checkpoints
    checkpoints.restore = timed("state", checkpoints.restore)
    step: Any = TrainingStep
    step.fresh_state = timed("state", step.fresh_state)
    step.compile = timed("compile", step.compile)
    batches: Any = device_batches.DeviceBatches
    batches.__next__ = timed("first batch", batches.__next__, first=True)

    def end(self: Any, step: int, metrics: dict[str, jax.Array], **_: Any) -> None:
        begin = time.time()
        jax.block_until_ready(metrics)  # the step was only dispatched so far
        SECONDS["first step"] = time.time() - begin
        if stop:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            print(json.dumps({"total": time.time() - SPAWNED} | SECONDS), flush=True)
            os._exit(0)

    progress: Any = training_log.Progress
    progress.add = end


def main() -> None:
    """Runs the command."""
    watch(stop=sys.argv[2] == "stop")
    from mlimages_jax.main import run

    sys.argv = [sys.argv[0], *sys.argv[3:]]
    run()


if __name__ == "__main__":
    main()
