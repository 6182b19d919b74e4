# SPDX-License-Identifier: BSD-3-Clause
"""One of several processes that tag pictures together."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

from tests.small_run import ROOT, load_config

DEVICES = 8  # of all processes together


def start(
    workdir: Path, values: dict[str, Any], *, port: int, number: int, count: int
) -> subprocess.Popen[str]:
    """Process `number` of `count`, in a session of its own; process 0 listens at the port."""
    ours = {name: v for name, v in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    cache = {name: v for name, v in os.environ.items() if name.startswith("JAX_COMPILATION_CACHE")}
    arguments = [str(workdir), json.dumps(values), str(port), str(number), str(count)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.classify_child", *arguments],
        cwd=ROOT,
        env=ours | cache | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def main(workdir: str, values: str, port: str, number: str, count: str) -> None:
    jax.config.update("jax_num_cpu_devices", DEVICES // int(count))
    jax.distributed.initialize(
        f"127.0.0.1:{port}", num_processes=int(count), process_id=int(number)
    )
    from mlimages_jax import classify_pictures

    config = load_config("classify")
    config.update_from_flattened_dict(json.loads(values))
    classify_pictures.classify(config, workdir)


if __name__ == "__main__":
    main(*sys.argv[1:])
