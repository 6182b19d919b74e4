# SPDX-License-Identifier: BSD-3-Clause
"""Settings renamed in 0.2.0: files and flags may use old names until 0.3, checkpoints always."""

import functools
from collections.abc import Mapping
from typing import Any

from absl import logging

from mlimages_jax.settings.fields import Values, flatten, nest

NEW_NAMES = {
    "averaged": "ema",
    "data.reassessed": "data.real_labels",
    "dictionary": "classes",
    "input.max_bad_pictures": "input.max_bad_images",
    "evaluation.protocols": "evaluation.views",
    "optimizer.average_decay": "optimizer.ema_decay",
    "optimizer.learning_rate_factors": "optimizer.lr_multipliers",
    "view.protocol": "view.name",
}


def new_name(name: str, *, where: str) -> str:
    """Returns the current name of a setting; logs a line if it was renamed.

    Args:
        name: Old or current dotted name.
        where: Where the name was found, for the log.
    """
    if name in NEW_NAMES:
        _tell(name, where)
    return NEW_NAMES.get(name, name)


def with_new_names(values: Mapping[str, Any], *, where: str) -> Values:
    """Returns values by current name; a value under the new name takes precedence."""
    renamed: Values = {}
    for name, value in values.items():
        # Somebody has set both, such as a file by the old name and the command line by the new.
        if name in NEW_NAMES and NEW_NAMES[name] in values:
            _tell(name, where)
        else:
            renamed[new_name(name, where=where)] = value
    return renamed


def saved_with_new_names(saved: dict[str, Any], *, where: str) -> dict[str, Any]:
    """Returns the JSON values of a checkpoint under current names."""
    flat = flatten(saved)
    return nest(with_new_names(flat, where=where)) if NEW_NAMES.keys() & flat.keys() else saved


@functools.cache  # one line each, however often a checkpoint is read
def _tell(name: str, where: str) -> None:
    logging.info("%s: %s is now called %s", where, name, NEW_NAMES[name])
