# SPDX-License-Identifier: BSD-3-Clause
"""What a process started by a test inherits."""

import os

# Children compile as we do, else bits could differ, and find the programs compiled so far.
COMPILATION = (
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_DISABLE_MOST_OPTIMIZATIONS",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)


def with_own_devices() -> dict[str, str]:
    """The environment without our eight virtual devices and other settings of jax, on the CPU."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in COMPILATION or not name.startswith(("JAX_", "XLA_"))
    }
    return kept | {"JAX_PLATFORMS": "cpu"}
