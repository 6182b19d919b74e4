# SPDX-License-Identifier: BSD-3-Clause
"""Fills in the sizes of a network left open in the configuration from a checkpoint."""

import contextlib
from typing import Any

from absl import logging
from etils import epath

from mlimages_jax.checkpoints import places, step_folders
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError, agreed
from mlimages_jax.distributed import collectives
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
        HubError: `init_from` is not on the Hub for this user.
    """
    configured = {name: getattr(config.model, name) for name in architecture.WORDS}
    if all(configured.values()):
        return config
    # A run that resumes does not need what it began with, which may be gone by now.
    resumes = collectives.of_process_0(bool(step_folders.find(workdir)))
    start = "" if resumes or not config.init_from else places.local(config.init_from, quietly=True)
    values, where = agreed(lambda: _found(workdir, start))
    sizes = {name: value or values[name] for name, value in configured.items()}
    logging.info(
        "the network is that of %s: %s",
        where or config.init_from, ", ".join(f"{name}={value}" for name, value in sizes.items()),
    )  # fmt: skip
    return replaced(config, {f"model.{name}": value for name, value in sizes.items()})


def _found(workdir: epath.Path, start: epath.PathLike) -> tuple[dict[str, Any], str]:
    """Returns the sizes, and their source for the log; "" for init_from."""
    # The workdir first: its network stays the same, whatever init_from contains by now.
    for folder in reversed(step_folders.find(workdir)):
        with contextlib.suppress(DamagedCheckpointError):  # set aside and logged on restore
            return _of(folder), str(folder)
    if start:
        return _of(epath.Path(start)), ""
    return build.OPEN_NETWORK, "the release"


def _of(place: epath.Path) -> dict[str, Any]:
    params = places.opened(place).tree["params"]  # of a step shapes only, from the metadata
    try:
        architecture.network_of(params)
    except architecture.UnknownArchitectureError as error:
        raise build.ConfigError(f"{place}: {error}") from error
    return architecture.body_of(params)
