# SPDX-License-Identifier: BSD-3-Clause
"""The workdir's recipe.json: what the first start of a tagger chose, for restarts to train too."""

import json
from collections.abc import Mapping
from typing import Any

from absl import logging
from etils import epath

from mlimages_jax.checkpoints import step_folders
from mlimages_jax.distributed import collectives
from mlimages_jax.files.remote import write_text
from mlimages_jax.files.text_files import read_text
from mlimages_jax.settings import ConfigError
from mlimages_jax.settings.fields import Values, table_of_fields
from mlimages_jax.settings.rules import is_whole
from mlimages_jax.settings.tagger import Tagger

NAME = "recipe.json"
_STEPS = "total_steps"
# What the recipe used before it chose these.
_OF_BEFORE: Mapping[str, Any] = {
    "crop.area": (0.25, 1.0), "augmentation.hue": 0.2, "augmentation.rand_augment": 0,
}  # fmt: skip


def read(workdir: epath.Path) -> Values | None:
    """Returns what an earlier start chose; None if no training has begun, so that all is open.

    Args:
        workdir: Folder of the run, or of the runs of several folds.

    Raises:
        ConfigError: The file is damaged.
    """
    file = workdir / NAME
    if not file.exists() or not _has_begun(workdir):
        return None
    try:
        chosen = json.loads(read_text(file))
    except ValueError as error:
        raise _damaged(file, str(error)) from error
    if not isinstance(chosen, dict):
        raise _damaged(file, "it is no table of settings")
    if unknown := sorted(chosen.keys() - table_of_fields(Tagger).keys()):
        raise _damaged(file, f"there is no setting {unknown[0]!r}")
    if not is_whole(chosen.get(_STEPS)) or chosen[_STEPS] < 1:
        raise _damaged(file, f"{_STEPS} is not a number of steps")
    logging.info(
        "%s: goes on with what an earlier start chose, %d steps; epochs and minutes count at the "
        "first start only, --config.total_steps=N changes the length",
        file, chosen[_STEPS],
    )  # fmt: skip
    return {**_OF_BEFORE, **chosen}


def write(workdir: epath.Path, chosen: Values) -> None:
    """Writes what was chosen; called by all processes, of which the first one writes."""
    if collectives.process_number() == 0:
        write_text(workdir / NAME, json.dumps(chosen, indent=1))


def _has_begun(workdir: epath.Path) -> bool:
    """Returns whether anything was saved; if all of it is damaged, a backup may follow."""
    saved = [one / step_folders.FOLDER for one in (workdir, *workdir.glob("fold_*"))]
    return any(
        step_folders.latest_step(one) is not None or step_folders.names_aside(one) for one in saved
    )


def _damaged(file: epath.Path, problem: str) -> ConfigError:
    return ConfigError(
        f"{file}: {problem}: restore it, or delete it to choose anew (its settings must then be "
        "those of the checkpoints)"
    )
