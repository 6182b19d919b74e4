# SPDX-License-Identifier: BSD-3-Clause
"""From values to settings, and from settings as they are given to the numbers that a run uses.

Steps may be fractions of `total_steps`: those of the published recipes are, so that a shorter run
is the same recipe, faster. At the published length they are the published numbers.
"""

from collections.abc import Mapping
from typing import Any, TypeVar

from mlimages_jax.files.paths import expanded
from mlimages_jax.settings.fields import Values, build, flatten
from mlimages_jax.settings.judge import check, resolve_values, table_of, with_defaults
from mlimages_jax.settings.renamed import with_new_names
from mlimages_jax.settings.tasks import TASKS, Settings

AnyTask = TypeVar("AnyTask", bound=Settings)


def parse(values: Mapping[str, Any], *, workdir: str | None = None) -> Settings:
    """The settings of a task, of values that anybody gave.

    Args:
        values: Values by old or new name, or nested; without `task` they are a training's. Missing
            ones have their defaults.
        workdir: As for `judge.check`.

    Raises:
        ConfigError: Settings are misspelt, missing or out of range; all of them are listed.
        PathError: A path begins with the home of an unknown user.
    """
    flat = {"task": "train"} | with_new_names(flatten(values), where="the configuration")
    flat = {name: _at_home(value) for name, value in flat.items()}
    check(flat, workdir=workdir)
    return _made(flat)


def replaced(config: AnyTask, changes: Mapping[str, Any]) -> AnyTask:
    """Settings with other values for some, by their names with dots, judged again.

    Raises:
        ConfigError: As `parse`.
    """
    changes = with_new_names(changes, where="the configuration")
    return parse(flatten(config) | changes)  # type: ignore[return-value]  # of the same task


def checked(config: AnyTask) -> AnyTask:
    """The settings that a task uses, once all are judged, for whom made them without `parse`.

    Raises:
        ConfigError: Settings are out of range; all of them are listed.
    """
    check(flatten(config))
    return resolved(config)


def resolved(config: AnyTask) -> AnyTask:
    """Settings with steps for fractions and rates for this batch size; done twice, the same."""
    return at_length(config, getattr(config, "total_steps", 0))


def at_length(config: AnyTask, total_steps: int) -> AnyTask:
    """Like `resolved`, with fractions of another length; `total_steps` itself stays."""
    flat = flatten(config)
    values = resolve_values(flat, table_of(flat), total_steps)
    every = values.get("checkpoint.every")
    if every and 0 < flat["checkpoint.keep_every"] < 1:  # what is kept has to be saved
        values["checkpoint.keep_every"] = max(
            every, round(values["checkpoint.keep_every"] / every) * every
        )
    return _made(_with_linear_rule(values))  # type: ignore[return-value]  # of the same task


def _made(values: Values) -> Settings:
    """The dataclass of a task; values are judged."""
    return build(TASKS[values["task"]], with_defaults(values, table_of(values)))


def _at_home(value: Any) -> Any:
    return expanded(value) if isinstance(value, str) and value.startswith("~") else value


def _with_linear_rule(values: Values) -> Values:
    """Rates that were chosen for batches of `learning_rate_for`, scaled to this batch size."""
    batch = values.get("learning_rate_for", 0)
    if not batch:
        return values
    factor = values["batch_size"] / batch  # Goyal et al., 2017, section 2.1
    return {
        name: value * factor if name.endswith("learning_rate") else value
        for name, value in values.items()
    } | {"learning_rate_for": 0}
