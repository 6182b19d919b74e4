# SPDX-License-Identifier: BSD-3-Clause
"""Fills in the sizes of a network left open in the configuration from a checkpoint."""

import contextlib
from typing import Any

from absl import logging
from etils import epath

from mlimages_jax.checkpoints import step_folders
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError, SavedStep, agreed
from mlimages_jax.models import architecture
from mlimages_jax.settings import Train, build, replaced


def filled(config: Train, workdir: epath.Path) -> Train:
    """Returns a copy in which all sizes of `model` are set; those already set are kept.

    The sizes are read from the newest intact checkpoint of the workdir, else from `init_from`;
    without either they are those of the released ResNet-101.

    Args:
        config: Validated settings of a training.
        workdir: Folder of the run.

    Raises:
        ConfigError: `init_from` contains a network that is not one of this package.
        DamagedCheckpointError: `init_from` is damaged.
        FileNotFoundError: `init_from` contains no checkpoint.
    """
    configured = {name: getattr(config.model, name) for name in architecture.WORDS}
    if all(configured.values()):
        return config
    values, where = agreed(lambda: _found(workdir, config.init_from))
    sizes = {name: value or values[name] for name, value in configured.items()}
    logging.info(
        "the network is that of %s: %s",
        where, ", ".join(f"{name}={value}" for name, value in sizes.items()),
    )  # fmt: skip
    return replaced(config, {f"model.{name}": value for name, value in sizes.items()})


def _found(workdir: epath.Path, init_from: str) -> tuple[dict[str, Any], str]:
    """Returns the sizes, and their source for the log."""
    # The workdir first: its network stays the same, whatever init_from contains by now.
    for folder in reversed(step_folders.find(workdir)):
        with contextlib.suppress(DamagedCheckpointError):  # set aside and logged on restore
            return _of(folder), str(folder)
    if init_from:
        return _of(step_folders.resolve_quietly(init_from)), init_from
    return build.OPEN_NETWORK, "the release"


def _of(folder: epath.Path) -> dict[str, Any]:
    params = SavedStep(folder).tree["params"]  # shapes only, from the metadata
    try:
        architecture.network_of(params)
    except architecture.UnknownArchitectureError as error:
        raise build.ConfigError(f"{folder}: {error}") from error
    return architecture.body_of(params)
