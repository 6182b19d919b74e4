# SPDX-License-Identifier: BSD-3-Clause
"""The settings of every task: read, judged and resolved before anything else is imported.

    config_file   --config=FILE[:VARIANT] and the overrides --config.NAME=VALUE
    rules         what one value may be
    tables        the rule of every setting of every task
    relations     what settings must be to each other
    judge         all problems of a configuration, at once
    resolve       fractions of the run become steps; the linear rule for the rate

Nothing here imports jax: a mistake is told within the first second.
"""

from mlimages_jax.settings.judge import ConfigError, check
from mlimages_jax.settings.resolve import at_length, checked, resolved

__all__ = ["ConfigError", "at_length", "check", "checked", "resolved"]
