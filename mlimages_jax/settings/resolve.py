# SPDX-License-Identifier: BSD-3-Clause
"""From settings as they are given to the numbers that a run uses.

Steps may be fractions of `total_steps`: those of the published recipes are, so that a shorter run
is the same recipe, faster. At the published length they are the published numbers.
"""

from ml_collections import ConfigDict

from mlimages_jax.settings.flat import Values, flatten, nest
from mlimages_jax.settings.judge import check, resolve_values, table_of


def checked(config: ConfigDict) -> ConfigDict:
    """The settings that a task uses, once all are judged.

    Raises:
        ConfigError: names every setting that cannot be used.
    """
    check(config)
    return resolved(config)


def resolved(config: ConfigDict) -> ConfigDict:
    """Settings with steps for fractions and rates for this batch size; done twice, the same."""
    return at_length(config, config.get("total_steps", 0))


def at_length(config: ConfigDict, total_steps: int) -> ConfigDict:
    """Like `resolved`, with fractions of another length; `total_steps` itself stays."""
    given = flatten(config)
    values = resolve_values(given, table_of(given), total_steps)
    every = values.get("checkpoint.every")
    if every and 0 < given.get("checkpoint.keep_every", 0) < 1:  # what is kept has to be saved
        values["checkpoint.keep_every"] = max(
            every, round(values["checkpoint.keep_every"] / every) * every
        )
    return nest(_with_linear_rule(values))


def _with_linear_rule(values: Values) -> Values:
    """Rates that were chosen for batches of `learning_rate_for`, scaled to this batch size."""
    batch = values.pop("learning_rate_for", 0)
    if not batch:
        return values
    factor = values["batch_size"] / batch  # Goyal et al., 2017, section 2.1
    return {
        name: value * factor if name.endswith("learning_rate") else value
        for name, value in values.items()
    }
