# SPDX-License-Identifier: BSD-3-Clause
"""What stands beside a measurement: the configuration that it changed, the machine, the load."""

import datetime
import importlib.util
import os
from pathlib import Path

import jax
from ml_collections import ConfigDict

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def load_config(name: str, *variant: str) -> ConfigDict:
    """The configuration of configs/<name>.py, which is no package."""
    spec = importlib.util.spec_from_file_location(name, CONFIGS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*variant)


def where_and_when() -> str:
    """Date, device, cores, version of jax and load of the last minute, in a line."""
    device = jax.devices()[0].device_kind
    return (
        f"{datetime.date.today()}, {jax.device_count()} {device}, {os.cpu_count()} cores, "
        f"jax {jax.__version__}, load {os.getloadavg()[0]:.1f} at the start"
    )
