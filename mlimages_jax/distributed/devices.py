# SPDX-License-Identifier: BSD-3-Clause
"""Describes the available devices and checks that they are of the requested kind."""

import collections
from collections.abc import Sequence

import jax
from absl import logging


class PlatformError(RuntimeError):
    """No device of the requested kind is available."""


def check_platform(required: str | None) -> None:
    """Logs the available devices and checks that they are of the requested kind.

    If no accelerator is visible, jax silently falls back to the CPU, even with a list such as
    JAX_PLATFORMS=cuda,cpu.

    Args:
        required: "cpu", "gpu" or "tpu"; None for the first platform in JAX_PLATFORMS, if set.

    Raises:
        PlatformError: No device can be used, or none of the requested kind.
    """
    platforms: str = jax.config.jax_platforms or ""  # type: ignore[attr-defined]  # set by name
    # JAX_PLATFORMS is a list in the order of preference.
    asked = required or platforms.split(",")[0].strip()
    try:
        found, devices = jax.default_backend(), jax.devices()
    except RuntimeError as error:
        raise PlatformError(f"no {asked or 'device'} is available here: {error}") from error
    logging.info(
        "devices: %s (%s), %d of them in this process; jax %s",
        described(devices), found, jax.local_device_count(), jax.__version__,
    )  # fmt: skip
    # JAX_PLATFORMS names the vendor's platform, but jax calls the backend "gpu".
    wanted = "gpu" if asked in ("cuda", "rocm") else asked
    if wanted in ("cpu", "gpu", "tpu") and wanted != found:
        raise PlatformError(
            f"a {wanted} was requested ("
            + ("--require_platform" if required else f"JAX_PLATFORMS={platforms}")
            + f") but only {found} devices are visible. Check the driver (nvidia-smi), the devices "
            "of the container and the installed jax (pip install 'jax[cuda13]' or 'jax[tpu]'), "
            "or train on the CPU with JAX_PLATFORMS=cpu"
        )


def described(devices: Sequence[jax.Device]) -> str:
    """Returns number and kind of devices, such as "8 x TPU v5"."""
    kinds = collections.Counter(device.device_kind for device in devices)
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())
