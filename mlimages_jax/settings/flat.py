# SPDX-License-Identifier: BSD-3-Clause
"""Settings as one level of names with dots, and as the nested ConfigDict that tasks read."""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

Values = dict[str, Any]


def flatten(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> Values:
    """{"crop.area": ...} of a nested configuration, in its order; empty sections leave nothing."""
    flat: Values = {}
    for name, value in config.items():
        if not isinstance(name, str):
            raise TypeError(f"{prefix}{name!r} is no name of a setting")
        if isinstance(value, ConfigDict | dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def nest(values: Values) -> ConfigDict:
    """The configuration of flat values, locked: a misspelt name is an error where it is used."""
    config = ConfigDict()
    for name, value in values.items():
        *sections, last = name.split(".")
        place = config
        for section in sections:
            if section not in place:
                place[section] = ConfigDict()
            place = place[section]
        place[last] = value
    return config.lock()
