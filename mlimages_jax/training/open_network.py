# SPDX-License-Identifier: BSD-3-Clause
"""The network of a configuration that leaves it open: that of the checkpoint it begins with."""

import contextlib
from typing import Any

from absl import logging
from etils import epath

from mlimages_jax.checkpoints import step_folders
from mlimages_jax.checkpoints.saved_step import DamagedCheckpointError, SavedStep, agreed
from mlimages_jax.models import architecture
from mlimages_jax.settings import Train, build, replaced


def filled(config: Train, workdir: epath.Path) -> Train:
    """A copy whose `model` says all sizes; those that it says already stay.

    They are read off the workdir's own newest checkpoint that is whole, else off `init_from`; where
    neither is there they are those of ResNet-101, the release's.

    Args:
        config: of a training, judged.
        workdir: of the run.

    Raises:
        ConfigError: `init_from` holds another network than those of this package.
        DamagedCheckpointError: `init_from` is damaged.
        FileNotFoundError: `init_from` holds no checkpoint.
    """
    given = {name: getattr(config.model, name) for name in architecture.WORDS}
    if all(given.values()):
        return config
    values, where = agreed(lambda: _found(workdir, config.init_from))
    sizes = {name: value or values[name] for name, value in given.items()}
    logging.info(
        "the network is that of %s: %s",
        where, ", ".join(f"{name}={value}" for name, value in sizes.items()),
    )  # fmt: skip
    return replaced(config, {f"model.{name}": value for name, value in sizes.items()})


def _found(workdir: epath.Path, init_from: str) -> tuple[dict[str, Any], str]:
    """Sizes, and where they come from."""
    for folder in reversed(step_folders.find(workdir)):
        with contextlib.suppress(DamagedCheckpointError):  # set aside, and said, when restored
            return _of(folder), str(folder)
    if init_from:
        return _of(step_folders.resolve(init_from)), init_from
    return build.OPEN_NETWORK, "the release"


def _of(folder: epath.Path) -> dict[str, Any]:
    params = SavedStep(folder).tree["params"]
    try:
        architecture.network_of(params)
    except architecture.UnknownArchitectureError as error:
        raise build.ConfigError(f"{folder}: {error}") from error
    return architecture.body_of(params)
