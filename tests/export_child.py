# SPDX-License-Identifier: BSD-3-Clause
"""An export in a process of its own, alone or one of several."""

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
    workdir: Path, values: dict[str, Any], *, port: int = 0, number: int = 0, count: int = 1
) -> subprocess.Popen[str]:
    """Process `number` of `count`, in a session of its own.

    Args:
        workdir: of the export.
        values: of configs/export_features.py.
        port: where process 0 listens.
        number: of this process.
        count: of processes.
    """
    ours = {name: v for name, v in os.environ.items() if not name.startswith(("JAX_", "XLA_"))}
    cache = {name: v for name, v in os.environ.items() if "CACHE" in name and name[:4] == "JAX_"}
    arguments = [str(workdir), json.dumps(values), str(port), str(number), str(count)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.export_child", *arguments],
        cwd=ROOT,
        env=ours | cache | {"JAX_PLATFORMS": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def main(workdir: str, values: str, port: str, number: str, count: str) -> None:
    jax.config.update("jax_num_cpu_devices", DEVICES // int(count))
    if int(count) > 1:
        jax.distributed.initialize(
            f"127.0.0.1:{port}", num_processes=int(count), process_id=int(number)
        )
    from mlimages_jax import export_features

    config = load_config("export_features")
    config.update_from_flattened_dict(
        {name: tuple(v) if isinstance(v, list) else v for name, v in json.loads(values).items()}
    )
    export_features.export(config, workdir)


if __name__ == "__main__":
    main(*sys.argv[1:])
