# SPDX-License-Identifier: BSD-3-Clause
"""What stands beside a measurement: the configuration that it changed, the machine, the load."""

import datetime
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mlimages_jax import settings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def load_config(name: str, changes: Mapping[str, Any], *, variant: str = "") -> Any:
    """The settings of configs/<name>.py:<variant>, with other values by dotted names."""
    file = CONFIGS / f"{name}.py"
    return settings.load(f"{file}:{variant}" if variant else str(file), changes)


def where_and_when() -> str:
    """Date, device, cores, version of jax and load of the last minute, in a line."""
    device = jax.devices()[0].device_kind
    return (
        f"{datetime.date.today()}, {jax.device_count()} {device}, {os.cpu_count()} cores, "
        f"jax {jax.__version__}, load {os.getloadavg()[0]:.1f} at the start"
    )
