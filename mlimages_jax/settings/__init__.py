# SPDX-License-Identifier: BSD-3-Clause
"""The settings of every task: read, judged and made dataclasses before anything else is imported.

    config_file   --config=FILE[:VARIANT] and the overrides --config.NAME=VALUE
    training      the settings of a training: rule, meaning and default of each
    tasks         those of the other tasks
    fields        how such a dataclass is made of values, and values of it
    rules         what one value may be
    relations     what settings must be to each other
    judge         all problems of a configuration, at once
    renamed       old names of settings
    resolve       fractions of the run become steps; the linear rule for the rate
    help_text     --config.help
    build         from settings to the objects that training needs
    restart       what a restart may change

All but the last two import no jax: a mistake is told within the first second.
"""

from mlimages_jax.settings.config_file import load
from mlimages_jax.settings.fields import flatten
from mlimages_jax.settings.judge import ConfigError
from mlimages_jax.settings.resolve import at_length, checked, parse, replaced, resolved
from mlimages_jax.settings.tasks import Classify, Evaluate, Export, Settings
from mlimages_jax.settings.training import Train

__all__ = [
    "Classify",
    "ConfigError",
    "Evaluate",
    "Export",
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
