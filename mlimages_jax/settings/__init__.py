# SPDX-License-Identifier: BSD-3-Clause
"""The settings of every task: read, validated and stored in dataclasses before anything else.

    config_file   --config=FILE[:VARIANT] and the overrides --config.NAME=VALUE
    training      settings of a training, each with its rule, meaning and default
    tasks         settings of the other tasks
    fields        converts between these dataclasses and values by name
    rules         which values one setting may have; compound_rules: tuples, values left open
    relations     constraints between several settings
    judge         reports all problems of a configuration at once
    renamed       old names of settings
    resolve       converts fractions of the run to steps; the linear scaling rule of the rate
    help_text     --config.help
    build         creates the objects that training needs from settings
    restart       which settings a restart may change

All but the last two work without importing jax, so a mistake is reported within the first second.
"""

from mlimages_jax.settings.config_file import load
from mlimages_jax.settings.fields import flatten
from mlimages_jax.settings.judge import ConfigError
from mlimages_jax.settings.resolve import at_length, checked, parse, replaced, resolved
from mlimages_jax.settings.tasks import Classify, Evaluate, Export, FindThresholds, Settings
from mlimages_jax.settings.training import Train

__all__ = [
    "Classify",
    "ConfigError",
    "Evaluate",
    "Export",
    "FindThresholds",
    "Settings",
    "Train",
    "at_length",
    "checked",
    "flatten",
    "load",
    "parse",
    "replaced",
    "resolved",
]
