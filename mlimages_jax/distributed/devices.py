# SPDX-License-Identifier: BSD-3-Clause
"""Which devices there are, said first, and whether they are those that were asked for."""

import collections

import jax
from absl import logging


class PlatformError(RuntimeError):
    """The devices that were asked for are not there."""


def check_platform(required: str | None) -> None:
    """Says which devices there are, and whether they are those that were asked for.

    jax takes the CPU without a word where no accelerator is visible, also after a list such as
    JAX_PLATFORMS=cuda,cpu.

    Args:
        required: cpu, gpu or tpu; None: what JAX_PLATFORMS names first, if it is set.

    Raises:
        PlatformError: there are none.
    """
    asked = required or (jax.config.jax_platforms or "").split(",")[0].strip()  # type: ignore[attr-defined]
    try:
        found, devices = jax.default_backend(), jax.devices()
    except RuntimeError as error:
        raise PlatformError(f"no {asked or 'device'} can be used here: {error}") from error
    kinds = collections.Counter(device.device_kind for device in devices)
    logging.info(
        "devices: %s (%s), %d of them of this process; jax %s",
        ", ".join(f"{count} x {kind}" for kind, count in kinds.items()), found,
        jax.local_device_count(), jax.__version__,
    )  # fmt: skip
    wanted = "gpu" if asked in ("cuda", "rocm") else asked
    if wanted in ("cpu", "gpu", "tpu") and wanted != found:
        raise PlatformError(
            f"a {wanted} is asked for ("
            + ("--require_platform" if required else f"JAX_PLATFORMS={jax.config.jax_platforms}")  # type: ignore[attr-defined]
            + f") and none is visible, only {found} devices. Look at the driver (nvidia-smi), the "
            "container's devices and the installed jax (pip install 'jax[cuda13]' or 'jax[tpu]'), "
            "or train on the CPU with JAX_PLATFORMS=cpu"
        )
