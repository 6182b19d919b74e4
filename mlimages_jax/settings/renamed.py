# SPDX-License-Identifier: BSD-3-Clause
"""Settings that have another name since 0.2.0; the old names go with the release after it."""

import functools
from collections.abc import Mapping
from typing import Any

from absl import logging

from mlimages_jax.settings.fields import Values, flatten, nest

NEW_NAMES = {
    "input.max_bad_pictures": "input.max_bad_images",
    "evaluation.protocols": "evaluation.views",
    "optimizer.average_decay": "optimizer.ema_decay",
    "optimizer.learning_rate_factors": "optimizer.lr_multipliers",
}


def new_name(name: str, *, where: str) -> str:
    """The name that a setting has now; says so where it is another one.

    Args:
        name: Old or new name, with dots.
        where: Where the name stands, for the log.
    """
    if name in NEW_NAMES:
        _tell(name, where)
    return NEW_NAMES.get(name, name)


def with_new_names(values: Mapping[str, Any], *, where: str) -> Values:
    """Values by the names of now; a value under a new name wins over one under the old."""
    renamed: Values = {}
    for name, value in values.items():
        if name in NEW_NAMES and NEW_NAMES[name] in values:
            _tell(name, where)
        else:
            renamed[new_name(name, where=where)] = value
    return renamed


def saved_with_new_names(saved: dict[str, Any], *, where: str) -> dict[str, Any]:
    """The JSON values of a checkpoint by the names of now."""
    flat = flatten(saved)
    return nest(with_new_names(flat, where=where)) if NEW_NAMES.keys() & flat.keys() else saved


@functools.cache  # a line for each, however often a checkpoint is looked at
def _tell(name: str, where: str) -> None:
    logging.info("%s: %s is called %s now", where, name, NEW_NAMES[name])
