# SPDX-License-Identifier: BSD-3-Clause
"""The setting of a measurement: its configuration, the machine and the load."""

import datetime
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from mlimages_jax import settings

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def load_config(name: str, changes: Mapping[str, Any], *, variant: str = "") -> Any:
    """Returns the settings of configs/<name>.py:<variant>, with changes by dotted name."""
    file = CONFIGS / f"{name}.py"
    return settings.load(f"{file}:{variant}" if variant else str(file), changes)


def where_and_when() -> str:
    """Returns date, device, cores, version of jax and load of the last minute, in one line."""
    device = jax.devices()[0].device_kind
    return (
        f"{datetime.date.today()}, {jax.device_count()} {device}, {os.cpu_count()} cores, "
        f"jax {jax.__version__}, load {os.getloadavg()[0]:.1f} at the start"
    )
